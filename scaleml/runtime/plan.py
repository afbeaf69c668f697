"""What a run is, as sent to each rank: immutable, and the same for all."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from scaleml.faults import Fault
from scaleml.models import Network
from scaleml.optim import Optimizer, RowSteps
from scaleml.runtime.sparsity import in_words, why_dense
from scaleml.strategies import Layout, Strategy
from scaleml.strategies.base import ServerStrategy


@dataclass(frozen=True)
class StopRule:
    """When to end before the last epoch, in scikit-learn's terms; all ranks come to the same decision.

    Parameters
    ----------
    tol : float or None
        An epoch that is not better than the best one by this much counts as one without improvement. None: all epochs
        are trained, and only noted.
    n_iter_no_change : int
        So many of them in a row end the run; with the schedule ``"adaptive"`` they divide the learning rate by 5 first,
        until it is as small as it gets.
    monitor : {"loss", "score"}
        The mean training objective of the epoch, or the held-out score after it.
    keep_best : bool
        Whether the run gives the parameters of the best held-out score rather than the last ones.
    """

    tol: float | None = 1e-3
    n_iter_no_change: int = 5
    monitor: Literal["loss", "score"] = "loss"
    keep_best: bool = False
    targets: int = 1
    """The loss is the sum over so many targets, and counts here as scikit-learn's perceptrons count it: as their mean."""
    power_t: float | None = None
    """With the schedule ``"adaptive"``: instead, the learning rate is divided by ``(rows so far + 1) ** power_t`` after each
    epoch, as ``"invscaling"`` of scikit-learn's perceptrons does."""


@dataclass(frozen=True)
class Start:
    """Where training goes on from, or came to: parameters (P,), the optimizer's arrays, updates and rows so far."""

    params: Any
    state: dict[str, Any] = field(default_factory=dict)
    updates: int = 0
    rows: float = 0.0


@dataclass(frozen=True)
class Handover:
    """What a rank leaves to the next generation of ranks, which goes on with another strategy from there.

    Parameters
    ----------
    start : Start
        Parameters and optimizer state, the same on all ranks that train.
    rows : int
        Rows that all ranks together have consumed.
    step, samples : int
        Steps so far, the most of any rank; rows that this rank has consumed.
    clock : float
        This rank's training clock.
    optimizer, batch_size, faults
        As they were told in mid-run; the faults are this rank's that are not over.
    commands : int
        How many commands the run has been told.
    """

    start: Start
    rows: int
    step: int
    samples: int
    clock: float
    optimizer: Optimizer
    batch_size: int
    faults: tuple[Fault, ...]
    commands: int


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
    stop: StopRule | None = None
    start: Start | None = None
    steps: RowSteps | None = None
    """What turns mean gradients into steps of scikit-learn's size, before the optimizer; None for nothing."""
    by_rows: bool = False
    """Whether gradients are divided by a batch's rows, not by its weight: no bias where weights differ, mean weight 1."""
    keep_end: bool = False
    """Whether the outcome says where training could go on from."""
    snapshots: bool = False
    """Whether rank 0 keeps the parameters after each epoch, for whoever asks; needs a stop rule."""
    handover: Handover | None = None
    """What an earlier generation of ranks has left to this rank."""

    @property
    def goal(self) -> int:
        """Rows that this generation of ranks still has to consume."""
        return self.rows * self.epochs - (0 if self.handover is None else self.handover.rows)

    @cached_property
    def rows(self) -> int:
        """Rows of training data."""
        return sum(self.shard_sizes)

    @property
    def serving(self) -> ServerStrategy:
        """The strategy, as a run with servers sees it."""
        assert isinstance(self.strategy, ServerStrategy), (
            f"{self.strategy!r} has servers, but does not say what they do"
        )
        return self.strategy

    @cached_property
    def why_dense(self) -> str:
        """Why updates are of whole vectors; nothing where they are sparse."""
        return why_dense(self.network, self.strategy, self.optimizer, self.steps)

    @property
    def sparse(self) -> bool:
        """Whether updates are of what a batch touches."""
        return not self.why_dense

    @property
    def form(self) -> str:
        """The form of updates in words, where there was something to decide."""
        return in_words(self.network, self.strategy, self.why_dense)

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
    """How a rank ended: ``finished``, ``stopped``, ``switched`` (others go on), ``failed`` or ``aborted``."""

    status: str
    step: int
    params: Any = None
    error: str = ""
    trace: str = ""
    epochs: int = 0
    losses: tuple[float, ...] = ()
    """The mean training objective of each epoch, where a stop rule looks at it."""
    scores: tuple[float, ...] = ()
    widest: int | None = None
    """With servers: the most clocks that any push was ahead of the slowest worker."""
    end: Start | None = None
    """Where training could go on from; ``params`` may be averaged or the best instead. Of a server: its slice."""
    handover: Handover | None = None
