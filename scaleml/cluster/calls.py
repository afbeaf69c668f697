"""Calls to Dask's workers and scheduler that cannot hang: each has an address and a deadline."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Final, Literal, NotRequired, TypedDict, TypeVar, cast, overload

from distributed import Client

from scaleml.cluster.errors import StartFailed

if TYPE_CHECKING:
    from tornado.platform.asyncio import BaseAsyncIOLoop

CALL_TIMEOUT: Final = 10.0
"""Seconds for a call that should be answered in milliseconds."""

Answer = TypeVar("Answer")


class WorkerFacts(TypedDict):
    """What Dask's scheduler knows of a worker, as far as it is used here."""

    name: object
    nthreads: int
    last_seen: float
    """When its last heartbeat came, by the scheduler's clock."""
    memory_limit: int | None
    resources: NotRequired[dict[str, float] | None]
    metrics: NotRequired[dict[str, float]]


def within(client: Client, seconds: float, coroutine: Coroutine[object, object, Answer], what: str) -> Answer:
    """Run a coroutine on the client's event loop and wait for it.

    Raises
    ------
    TimeoutError
        Naming ``what``, when it takes longer than ``seconds``.
    """
    future = asyncio.run_coroutine_threadsafe(coroutine, _loop(client))
    try:
        return future.result(seconds)
    except concurrent.futures.TimeoutError:
        future.cancel()
        raise TimeoutError(f"{what} took longer than {seconds:g} s") from None


@overload
def on_workers(
    client: Client, seconds: float, function: Callable[..., Answer], *args: object, workers: Sequence[str]
) -> dict[str, Answer]: ...
@overload
def on_workers(
    client: Client,
    seconds: float,
    function: Callable[..., Answer],
    *args: object,
    workers: Sequence[str],
    on_error: Literal["return", "ignore"],
) -> dict[str, Answer | BaseException]: ...
def on_workers(
    client: Client,
    seconds: float,
    function: Callable[..., Answer],
    *args: object,
    workers: Sequence[str],
    on_error: Literal["raise", "return", "ignore"] = "raise",
) -> dict[str, Answer | BaseException] | dict[str, Answer]:
    """Run a function out of band on some workers, each called by address, and wait for all.

    ``Client.run`` waits for ever on a process that is stopped; this does not.
    """
    call = client._run(function, *args, workers=list(workers), on_error=on_error)
    return dict(within(client, seconds, call, f"calling {function.__name__} on {', '.join(workers)}"))


def tell_workers(
    client: Client, seconds: float, function: Callable[..., object], *args: object, workers: Sequence[str]
) -> None:
    """Call a function on some workers without waiting for it: one of them may be dead without Dask knowing it yet."""
    call = client._run(function, *args, workers=list(workers), on_error="ignore")
    future = asyncio.run_coroutine_threadsafe(asyncio.wait_for(call, seconds), _loop(client))
    future.add_done_callback(lambda done: done.cancelled() or done.exception())


def identity(client: Client, seconds: float = CALL_TIMEOUT) -> dict[str, WorkerFacts]:
    """Return what the scheduler knows of its workers, fresh, by address.

    Raises
    ------
    StartFailed
        When the client was closed.
    TimeoutError, OSError
        When the scheduler does not answer, or is gone.
    """
    if client.scheduler is None:
        raise StartFailed(f"the Dask client is {client.status}: make a new distributed.Client, or pass client=None")
    question = client.scheduler.identity(n_workers=-1)
    answer = within(client, seconds, question, "asking the Dask scheduler for its workers")
    return dict(answer["workers"])


def _loop(client: Client) -> asyncio.AbstractEventLoop:
    return cast("BaseAsyncIOLoop", client.loop).asyncio_loop
