"""Calls to Dask's workers and scheduler that cannot hang: each has an address and a deadline."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import TYPE_CHECKING, Final, Literal, NotRequired, TypedDict, TypeVar, cast, overload

from distributed import Client, Worker

from scaleml.clock import WALL
from scaleml.cluster.errors import StartFailed

if TYPE_CHECKING:
    from tornado.platform.asyncio import BaseAsyncIOLoop

CALL_TIMEOUT: Final = 10.0
"""Seconds for a call that should be answered in milliseconds."""

_LOOK: Final = 0.5
"""Seconds between two looks whether the client is still open, and the worker that is to answer still there."""

_AT_ONCE: Final = 64
"""Workers asked at the same time."""

Answer = TypeVar("Answer")


class WorkerFacts(TypedDict):
    """What Dask's scheduler knows of a worker, as far as it is used here."""

    name: object
    nthreads: int
    host: str
    last_seen: float
    """When its last heartbeat came, by the scheduler's clock."""
    memory_limit: int | None
    resources: NotRequired[dict[str, float] | None]
    metrics: NotRequired[dict[str, float]]
    status: NotRequired[str]
    nanny: NotRequired[str | None]
    local_directory: NotRequired[str]
    """Of this start of the worker alone."""


def within(client: Client, seconds: float, coroutine: Coroutine[object, object, Answer], what: str) -> Answer:
    """Run a coroutine on the client's event loop and wait for it.

    Raises
    ------
    TimeoutError
        Naming ``what``, when it takes longer than ``seconds``.
    StartFailed
        When the client is closed, also in the middle of the call: what Dask then raises, if anything, is of many kinds, and none says so.
    """
    try:
        check_open(client)
        future = asyncio.run_coroutine_threadsafe(coroutine, _loop(client))
    except BaseException:
        coroutine.close()
        raise
    deadline = WALL.now() + seconds
    try:
        while True:
            left = deadline - WALL.now()
            done, _ = concurrent.futures.wait([future], max(0.0, min(left, _LOOK)))
            if done:
                return future.result()
            if left <= 0:
                raise TimeoutError(f"{what} took longer than {seconds:g} s")
            check_open(client)
    except Exception:
        check_open(client)
        raise
    finally:
        future.cancel()


def check_open(client: Client) -> None:
    """Raise StartFailed for a client that is closed or about to be."""
    if client.scheduler is None or client.status in ("closing", "closed"):
        raise StartFailed(
            f"the Dask client is {client.status}: make a new distributed.Client, or pass client=None"
        ) from None


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

    ``Client.run`` waits for ever on a process that is stopped; this does not, and says which of them did not answer.

    Parameters
    ----------
    seconds : float
        For each of them.
    on_error : {"raise", "return", "ignore"}
        Whether the first error is raised, or stands in place of the answer, or nothing does.

    Raises
    ------
    TimeoutError
        Naming the workers that did not answer.
    """
    answers = ask_each(client, seconds, lambda address: on_worker(client, address, function, *args), list(workers))
    failed = {address: answer for address, answer in answers.items() if isinstance(answer, BaseException)}
    if on_error == "ignore":
        return {address: answer for address, answer in answers.items() if address not in failed}
    if failed and on_error == "raise":
        late = [address for address, error in failed.items() if isinstance(error, TimeoutError)]
        if late:
            workers = f"worker {late[0]}" if len(late) == 1 else f"workers {', '.join(late)}"
            raise TimeoutError(f"{workers} did not answer within {seconds:g} s ({function.__name__})")
        raise next(iter(failed.values()))
    return answers


def ask_each(
    client: Client,
    seconds: float,
    question: Callable[[str], Coroutine[object, object, Answer]],
    workers: Sequence[str],
) -> dict[str, Answer | BaseException]:
    """Ask workers one by one, all at once, and return each one's answer, its error, or a TimeoutError, by address.

    A call to several goes by one message, and is answered when the slowest has answered: it does not tell who did not.

    Parameters
    ----------
    seconds : float
        For each of them.
    question : callable
        Given an address, returns a coroutine; it runs on the client's event loop.
    """
    few = asyncio.Semaphore(_AT_ONCE)

    async def ask(address: str) -> Answer | BaseException:
        async with few:
            task = asyncio.ensure_future(_while_there(client, address, question(address)))
            done, _ = await asyncio.wait({task}, timeout=seconds)
            if not done:
                task.cancel()  # its end is not waited for: that may take as long
                return TimeoutError(f"worker {address} did not answer within {seconds:g} s")
            return task.exception() or task.result()

    async def ask_all() -> list[Answer | BaseException]:
        return await asyncio.gather(*(ask(address) for address in workers))

    turns = 1 + len(workers) // _AT_ONCE
    answers = within(client, turns * seconds + CALL_TIMEOUT, ask_all(), f"asking {len(workers)} workers")
    return dict(zip(workers, answers, strict=True))


async def _while_there(client: Client, address: str, call: Coroutine[object, object, Answer]) -> Answer:
    """Return what a call to this worker returns; raise OSError when it leaves: Dask would try for long to reach it."""
    task = asyncio.ensure_future(call)
    try:
        while True:
            done, _ = await asyncio.wait({task}, timeout=_LOOK)
            if done:
                return task.result()
            assert client.scheduler is not None
            known = (await client.scheduler.identity(n_workers=-1))["workers"]
            if address not in known:
                raise OSError(f"worker {address} has left the cluster")
    finally:
        task.cancel()


async def on_worker(client: Client, address: str, function: Callable[..., Answer], *args: object) -> Answer:
    """Return what a function returns on one worker; for `ask_each`."""
    answers: dict[str, Answer] = await client._run(function, *args, workers=[address])
    return answers[address]


async def versions_on(client: Client, address: str) -> dict[str, str | None]:
    """Return the versions of Python and of Dask's packages on one worker, by name; for `ask_each`. No code of ours is sent."""
    assert client.scheduler is not None
    message = {"op": "versions", "packages": []}
    answers = await client.scheduler.broadcast(msg=message, workers=[address])
    return dict(answers[address]["packages"])


def scheduler_versions(client: Client, seconds: float = CALL_TIMEOUT) -> dict[str, str | None]:
    """Return the versions of Python and of Dask's packages on the scheduler, by name."""
    assert client.scheduler is not None
    question = client.scheduler.versions(packages=[])
    return dict(within(client, seconds, question, "asking the Dask scheduler for its versions")["packages"])


def known_addresses(client: Client, given: Iterable[str]) -> dict[str, str]:
    """Return, by what workers call themselves, how the scheduler calls them, of those where the two differ."""
    workers = list(identity(client))
    if set(given) <= set(workers):
        return {}
    answers = ask_each(client, CALL_TIMEOUT, lambda address: on_worker(client, address, own_address), workers)
    return {own: address for address, own in answers.items() if isinstance(own, str) and own != address}


def own_address(dask_worker: Worker) -> str:
    """Return what a worker takes for its address."""
    return str(dask_worker.address)


def unanswering(client: Client, workers: Sequence[str], seconds: float = 2.0) -> list[str]:
    """Return which workers do not answer: one of them holds up what was asked of all in one message."""
    answers = ask_each(client, seconds, lambda address: on_worker(client, address, own_address), workers)
    return [address for address, answer in answers.items() if isinstance(answer, BaseException)]


def tell_workers(
    client: Client, seconds: float, function: Callable[..., object], *args: object, workers: Sequence[str]
) -> None:
    """Call a function on some workers without waiting for it: one of them may be dead without Dask knowing it yet."""
    without_waiting(client, seconds, client._run(function, *args, workers=list(workers), on_error="ignore"))


def without_waiting(client: Client, seconds: float, call: Coroutine[object, object, object]) -> None:
    """Run a coroutine on the client's event loop for so many seconds at most, whatever comes of it."""
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
    check_open(client)
    assert client.scheduler is not None
    question = client.scheduler.identity(n_workers=-1)
    answer = within(client, seconds, question, "asking the Dask scheduler for its workers")
    return dict(answer["workers"])


def _loop(client: Client) -> asyncio.AbstractEventLoop:
    return cast("BaseAsyncIOLoop", client.loop).asyncio_loop
