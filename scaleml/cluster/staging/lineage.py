"""Lineage of a collection: which of its data nobody could compute again, should the one worker that holds it be lost."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from distributed import Client, futures_of

from scaleml.cluster import calls
from scaleml.data.sealed import by_value


def irreparable(client: Client, X: object, name: str) -> str:
    """Return what to say of a collection if some of its data lies on one worker alone and was computed from nothing; else nothing.

    That is what ``client.scatter`` leaves. Only a collection of futures has such data; where the scheduler runs no functions of
    clients, nobody knows.
    """
    keys = [str(future.key) for future in futures_of(X)]
    if not keys or client.status != "running":
        return ""
    alone = 0
    with contextlib.suppress(Exception):  # what is not known is not said
        question = client._run_on_scheduler(_alone, keys)
        alone = calls.within(
            client, calls.CALL_TIMEOUT, question, "asking the Dask scheduler for the lineage of the data"
        )
    if not alone:
        return ""
    return (
        f"{alone} of the {len(keys)} parts of {name} lie on one worker alone, and Dask cannot compute them again, for they were scattered: "
        "if that worker is lost, the run fails. Scatter them with broadcast=True, copy them with client.replicate(futures), or make the "
        "collection of what workers can read (files) or compute"
    )


@by_value
def _alone(keys: Sequence[str], dask_scheduler: Any) -> int:
    """Return how many of these tasks are, or are computed from, data without a task that at most one worker has."""

    def is_alone(first: Any) -> bool:
        seen, left = set(), [first]
        while left and len(seen) < 1000:
            task = left.pop()
            if task.run_spec is None and len(task.who_has or ()) < 2:
                return True
            new = [each for each in task.dependencies if each not in seen]
            seen.update(new)
            left += new
        return False

    return sum(key in dask_scheduler.tasks and is_alone(dask_scheduler.tasks[key]) for key in keys)
