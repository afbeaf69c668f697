"""What a run is, as sent to each rank: immutable, and the same for all."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from scaleml.faults import Fault
from scaleml.models import Network
from scaleml.optim import Optimizer
from scaleml.strategies import Layout, Strategy


@dataclass(frozen=True)
class Plan:
    """The mathematics of a run, the same on all ranks."""

    network: Network
    strategy: Strategy
    optimizer: Optimizer
    layout: Layout
    shard_sizes: tuple[int, ...]
    epochs: int
    batch_size: int
    seed: int
    dtype: str
    evaluate_every: int
    """Rows of data between two held-out evaluations; 0 for none."""
    faults: tuple[Fault, ...] = ()

    @cached_property
    def rows(self) -> int:
        """Rows of training data."""
        return sum(self.shard_sizes)

    def owned(self, rank: int) -> tuple[int, ...]:
        """Shards of a rank: whole runs of neighbours, as even as their number allows."""
        if self.layout.is_server(rank):
            return ()
        count, workers = len(self.shard_sizes), self.layout.workers
        return tuple(range(rank * count // workers, (rank + 1) * count // workers))


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

    @property
    def key(self) -> tuple[str, int, int]:
        """Name of this rank's place in its process."""
        return self.run, self.generation, self.rank


@dataclass
class Outcome:
    """How a rank ended: ``finished``, ``stopped``, ``failed`` or ``aborted``."""

    status: str
    step: int
    params: Any = None
    error: str = ""
    trace: str = ""
