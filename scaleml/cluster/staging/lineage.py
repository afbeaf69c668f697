"""Lineage of a collection: which of its data nobody could compute again, should the workers that hold it be lost."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from distributed import Client, futures_of

from scaleml.cluster import calls
from scaleml.data.sealed import by_value


def irreparable(client: Client, X: object, name: str) -> str:
    """Return what to say of a collection if some of its data was computed from nothing; else nothing.

    That is what ``client.scatter`` leaves. Copies on other workers do not help for long: Dask's active memory manager removes them.
    Only a collection of futures has such data; where the scheduler runs no functions of clients, nobody knows.
    """
    keys = [future.key for future in futures_of(X)]
    if not keys or client.status != "running":
        return ""
    found = 0
    with contextlib.suppress(Exception):  # what is not known is not said
        question = client._run_on_scheduler(_without_lineage, keys)
        found = calls.within(
            client, calls.CALL_TIMEOUT, question, "asking the Dask scheduler for the lineage of the data"
        )
    if not found:
        return ""
    return (
        f"{found} of the {len(keys)} parts of {name} were scattered: Dask cannot compute them again, and if a worker that holds one is "
        "lost, the run fails (Dask's active memory manager removes copies on other workers). Pass the arrays themselves, which this "
        "process keeps, or a collection of what workers can read or compute"
    )


@by_value
def _without_lineage(keys: Sequence[object], dask_scheduler: Any) -> int:
    """Return how many of these tasks are, or are computed from, data without a task."""

    def is_lost_for_good(first: Any) -> bool:
        seen: set[Any] = set()
        left = [first]
        while left and len(seen) < 1000:
            task = left.pop()
            if task.run_spec is None:
                return True
            new = [each for each in task.dependencies if each not in seen]
            seen.update(new)
            left += new
        return False

    return sum(key in dask_scheduler.tasks and is_lost_for_good(dask_scheduler.tasks[key]) for key in keys)
