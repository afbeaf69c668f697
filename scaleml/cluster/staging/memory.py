"""Memory of workers, and whether a model or a partition fits into it: refused beforehand, with figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Final

from distributed import Client
from distributed.system import MEMORY_LIMIT

from scaleml.cluster import calls
from scaleml.cluster.calls import WorkerFacts
from scaleml.cluster.current_client import has_client
from scaleml.cluster.embedded import embedded_size, find_client
from scaleml.cluster.errors import StartFailed
from scaleml.cluster.placement import Workers, candidates
from scaleml.data.stream import BLOCK
from scaleml.runtime.footprint import Footprint
from scaleml.strategies import Strategy

USABLE: Final = 0.9
"""Share of a worker's memory limit that may be used: Dask ends a worker at 0.95."""
_SMALL: Final = 256 << 20
"""Bytes that are not worth a question to the scheduler before the data is brought: the start asks anyway."""


def check_partition(
    info: Mapping[str, WorkerFacts], workers: Sequence[str], largest: int | None, name: str, *, is_own: bool = False
) -> None:
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
    is_own : bool
        Whether these are workers of the embedded cluster, without limits of their own: they share this machine's memory.

    Raises
    ------
    StartFailed
        With the figures.
    """
    if largest is None:
        return
    for address in workers:
        limit, used = memory_of(info[address])
        limit = limit or (MEMORY_LIMIT if is_own else 0)
        if limit and used + largest + 2 * BLOCK > USABLE * limit:
            raise StartFailed(
                f"a partition of {name} takes {in_bytes(largest)} of memory, but worker {address} is limited to {in_bytes(limit)} and its "
                f"process takes {in_bytes(used)} already: make the partitions smaller ({name}.rechunk), or give the workers more "
                "memory (memory_limit)"
            )


def check_model(footprint: Footprint, strategy: Strategy, client: Client | None, workers: Workers) -> None:
    """Refuse a model that no worker can hold, by what is known before data is brought and a cluster started.

    Where there is no cluster yet the embedded one's workers will share this machine's memory.

    Raises
    ------
    StartFailed
        With the figures.
    """
    if footprint.total < _SMALL:
        return
    if client is None and not has_client():
        asked = int(workers) if isinstance(workers, int | Integral) else embedded_size()
        ranks = strategy.layout(max(1, asked)).workers
        _refuse(footprint, MEMORY_LIMIT // ranks, 0, f"the {ranks} worker{'s' * (ranks != 1)} on this machine", ranks)
        return
    found, own = find_client(client, workers)
    info = calls.identity(found)
    chosen = candidates(info, workers, own)
    chosen = chosen[: strategy.layout(len(chosen)).workers]
    for address in chosen:
        limit, used = memory_of(info[address])
        limit = limit or (MEMORY_LIMIT // len(chosen) if own else 0)
        if limit:
            _refuse(footprint, limit, used, f"worker {address}", 1)


def _refuse(footprint: Footprint, limit: int, used: int, who: str, count: int) -> None:
    if used + footprint.total > USABLE * limit:
        taken = f", of which its process takes {in_bytes(used)} already" if used else ""
        raise StartFailed(
            f"{footprint.size:,} parameters need about {in_bytes(footprint.total)} a worker: {in_words(footprint)}; but {who} "
            f"ha{'s' if count == 1 else 've'} {in_bytes(limit)}{' each' * (count != 1)}{taken}. {REMEDY}"
        )


REMEDY: Final = "Use a smaller model, an optimizer without slots, or dtype='float32'; or give the workers more memory (memory_limit)"


def in_words(footprint: Footprint) -> str:
    """Return what a footprint is made of, with its figures."""
    return ", ".join(f"{what} {in_bytes(count * footprint.nbytes)}" for what, count in footprint.parts)


def memory_of(facts: WorkerFacts) -> tuple[int, int]:
    """Return a worker's memory limit, 0 for none, and what its process takes beside the results it keeps for Dask."""
    metrics = facts.get("metrics") or {}
    used = int(metrics.get("memory", 0)) - int(metrics.get("managed_bytes", 0))
    return int(facts.get("memory_limit") or 0), max(0, used)


def in_bytes(count: float) -> str:
    """Return a number of bytes in words.

    >>> in_bytes(4e7), in_bytes(1.23e10), in_bytes(8e13)
    ('40 MB', '12.30 GB', '80.00 TB')
    """
    if count >= 1e12:
        return f"{count / 1e12:,.2f} TB"
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
