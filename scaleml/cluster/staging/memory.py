"""Whether workers with a memory limit can hold what a run needs: refused beforehand, with figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from scaleml.cluster.errors import StartFailed
from scaleml.data.collections import Partitions
from scaleml.data.stream import BLOCK

WorkerFacts = Mapping[str, Mapping[str, object]]
"""Address -> facts, from the scheduler."""
_USABLE: Final = 0.9
"""Share of a worker's memory limit that may be used: Dask ends a worker at 0.95."""
_VECTORS: Final = 8
"""Arrays of the size of the parameters that a rank holds: these, gradients, the optimizer's state, what is sent."""


def check_partitions(info: WorkerFacts, workers: Sequence[str], partitions: Partitions, name: str) -> None:
    """Refuse partitions of which not even one fits into a worker.

    Raises
    ------
    StartFailed
        With the figures.
    """
    if partitions.rows is None or partitions.row_nbytes is None:
        return
    largest = max(partitions.rows) * partitions.row_nbytes
    for address in workers:
        limit, used = _limits(info[address])
        if limit and used + largest + 2 * BLOCK > _USABLE * limit:
            raise StartFailed(
                f"a partition of {name} takes {_mb(largest)} of memory, but worker {address} is limited to {_mb(limit)} and its "
                f"process takes {_mb(used)} already: make the partitions smaller ({name}.rechunk), or give the workers more "
                "memory (memory_limit)"
            )


def check_memory(
    info: WorkerFacts,
    addresses: Sequence[str],
    *,
    nbytes: int,
    row_nbytes: float,
    batch_size: int,
    size: int,
    itemsize: int,
    shards: int,
    share: float,
) -> None:
    """Refuse workers whose memory limit is too small for their rank even when the data is read from disk as it is needed.

    A rank needs, beside what its process takes already: its part of the data if that is at most ``share`` of the limit,
    else three blocks of 8 MB for each of its shards (less where there are more than eight); its part of a batch; and eight arrays of the
    size of the parameters.

    Parameters
    ----------
    info : mapping
        The workers' facts by address.
    addresses : sequence of str
        The worker of each training rank.
    nbytes, row_nbytes : int, float
        About how many bytes all X are, and a row of X.
    batch_size : int
        Rows of a global batch.
    size, itemsize : int
        The number of parameters, and the bytes of one.
    shards : int
        Into how many shards the data is cut.
    share : float
        Of a worker's memory limit, for data.

    Raises
    ------
    StartFailed
        With the figures.
    """
    ranks = len(addresses)
    mine = nbytes / ranks
    batch = batch_size / ranks * row_nbytes
    vectors = _VECTORS * size * itemsize
    in_flight = 3 * min(BLOCK, max(1 << 20, (64 << 20) // shards)) * -(-shards // ranks)
    for address in addresses:
        limit, used = _limits(info[address])
        if not limit:
            continue
        held = mine if mine <= share * limit else min(mine, in_flight)
        if used + held + batch + vectors > _USABLE * limit:
            raise StartFailed(
                f"worker {address} is limited to {_mb(limit)} of memory and its process takes {_mb(used)} already, but training needs "
                f"{_mb(held + batch + vectors)} more there: {_mb(held)} for data, {_mb(batch)} for its part of a batch of "
                f"{batch_size} rows, {_mb(vectors)} for {size} parameters and what belongs to them. Give the workers "
                "more memory (memory_limit), or use a smaller batch_size, fewer shards or a smaller model"
            )


def _limits(facts: Mapping[str, Any]) -> tuple[int, int]:
    """Return a worker's memory limit, 0 for none, and what its process takes beside the results it keeps for Dask."""
    metrics = facts.get("metrics", {})
    used = int(metrics.get("memory", 0)) - int(metrics.get("managed_bytes", 0))
    return int(facts.get("memory_limit") or 0), max(0, used)


def _mb(count: float) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
