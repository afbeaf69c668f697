"""Calls to Dask that cannot hang: each has an address and a deadline."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from distributed import Client


def within(client: Client, seconds: float, coroutine: Coroutine[Any, Any, Any], what: str) -> Any:
    """Run a coroutine on the client's event loop and wait for it.

    Raises
    ------
    TimeoutError
        Naming ``what``, when it takes longer than ``seconds``.
    """
    loop: Any = client.loop
    future = asyncio.run_coroutine_threadsafe(coroutine, loop.asyncio_loop)
    try:
        return future.result(seconds)
    except concurrent.futures.TimeoutError:
        future.cancel()
        raise TimeoutError(f"{what} took longer than {seconds:g} s") from None


def on_workers(
    client: Client,
    seconds: float,
    function: Callable[..., Any],
    *args: Any,
    workers: Sequence[str],
    on_error: str = "raise",
) -> dict[str, Any]:
    """Run a function out of band on some workers, each called by address, and wait for all.

    ``Client.run`` waits for ever on a process that is stopped; this does not.
    """
    call = client._run(function, *args, workers=list(workers), on_error=on_error)  # type: ignore[arg-type]
    result = within(client, seconds, call, f"calling {function.__name__} on {', '.join(workers)}")
    return dict(result)


def tell_workers(
    client: Client, seconds: float, function: Callable[..., Any], *args: Any, workers: Sequence[str]
) -> None:
    """Call a function on some workers without waiting for it: one of them may be dead without Dask knowing it yet."""
    call = client._run(function, *args, workers=list(workers), on_error="ignore")
    loop: Any = client.loop
    future = asyncio.run_coroutine_threadsafe(asyncio.wait_for(call, seconds), loop.asyncio_loop)
    future.add_done_callback(lambda done: done.cancelled() or done.exception())


def identity(client: Client, seconds: float) -> dict[str, Any]:
    """Return what the scheduler knows of its workers, fresh: address -> facts."""
    assert client.scheduler is not None
    facts = within(
        client, seconds, client.scheduler.identity(n_workers=-1), "asking the Dask scheduler for its workers"
    )
    return dict(facts["workers"])
