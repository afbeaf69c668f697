"""Memory limits of workers, and whether one can hold a partition: refused beforehand, with figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from scaleml.cluster.calls import WorkerFacts
from scaleml.cluster.errors import StartFailed
from scaleml.data.stream import BLOCK

USABLE: Final = 0.9
"""Share of a worker's memory limit that may be used: Dask ends a worker at 0.95."""


def check_partition(info: Mapping[str, WorkerFacts], workers: Sequence[str], largest: int | None, name: str) -> None:
    """Refuse a partition, the largest, that does not fit into every worker.

    Parameters
    ----------
    info : mapping
        Facts of the workers, by address.
    workers : sequence of str
        Those that it may come to.
    largest : int or None
        Its bytes, if they are known.
    name : str
        How the error calls X.

    Raises
    ------
    StartFailed
        With the figures.
    """
    if largest is None:
        return
    for address in workers:
        limit, used = memory_of(info[address])
        if limit and used + largest + 2 * BLOCK > USABLE * limit:
            raise StartFailed(
                f"a partition of {name} takes {in_bytes(largest)} of memory, but worker {address} is limited to {in_bytes(limit)} and its "
                f"process takes {in_bytes(used)} already: make the partitions smaller ({name}.rechunk), or give the workers more "
                "memory (memory_limit)"
            )


def memory_of(facts: WorkerFacts) -> tuple[int, int]:
    """Return a worker's memory limit, 0 for none, and what its process takes beside the results it keeps for Dask."""
    metrics = facts.get("metrics") or {}
    used = int(metrics.get("memory", 0)) - int(metrics.get("managed_bytes", 0))
    return int(facts.get("memory_limit") or 0), max(0, used)


def in_bytes(count: float) -> str:
    """Return a number of bytes in words."""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
