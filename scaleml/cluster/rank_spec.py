"""What one rank is told beside the plan: who it is, where the others listen, and its limits."""

from __future__ import annotations

from dataclasses import dataclass

from scaleml.runtime.outcome import Recovered
from scaleml.runtime.rank_change import RankChange


@dataclass(frozen=True)
class RankSpec:
    """What one rank is told beside the plan."""

    run: str
    generation: int
    rank: int
    nonce: str
    token: bytes
    book: tuple[tuple[str, int], ...]
    threads: int
    comm_timeout: float
    start_timeout: float
    shared_memory: bool
    memory_share: float = 0.25
    """Share of the worker's memory limit that the rank's data may take."""
    client_timeout: float = 30.0
    """Seconds for which it keeps what it has for a client that has lost its connection."""
    recovered: Recovered | None = None
    """What it goes on from after a loss."""
    change: RankChange | None = None
    """Who goes on as which rank, where there is another number of them than before."""

    @property
    def key(self) -> tuple[str, int, int]:
        """Name of this rank's place in its process."""
        return self.run, self.generation, self.rank

    @property
    def task(self) -> str:
        """Name of its Dask task."""
        return f"scaleml-{self.run}-{self.generation}-{self.rank}"
