"""Cancellation of a run's ranks: told first, so that they end by themselves, then forgotten by Dask."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TypeVar

from distributed import Client, Future

from scaleml.cluster import calls
from scaleml.cluster.endpoint import abort_ranks
from scaleml.cluster.parked_ranks import end_ranks

Answer = TypeVar("Answer")


def cancel_ranks(
    client: Client, run: str, workers: Sequence[str], futures: Sequence[Future[Answer]], seconds: float
) -> None:
    """Have the ranks of a failed run end, and Dask forget their tasks; nothing of it raises, for some may be gone.

    Parameters
    ----------
    client : Client
        The cluster.
    run : str
        The run's id.
    workers : sequence of str
        Those of its workers that live.
    futures : sequence of Future
        Its tasks.
    seconds : float
        To wait for the workers' answers.
    """
    with contextlib.suppress(Exception):
        calls.on_workers(client, seconds, end_ranks, run, "the run failed", workers=workers, on_error="ignore")
    with contextlib.suppress(Exception):
        calls.within(client, calls.CALL_TIMEOUT, client._cancel(futures, force=True), "cancelling the ranks")


def tell_to_end(client: Client, run: str, workers: Sequence[str], reason: str) -> None:
    """Tell the ranks on these workers to end, where they can be reached.

    Who does not hear it notices that its task is gone, or its links. The answers are not waited for: a worker that just died would
    hold up the very event that says so.
    """
    if client.status == "running" and workers:
        calls.tell_workers(client, calls.CALL_TIMEOUT, abort_ranks, run, reason, workers=workers)
