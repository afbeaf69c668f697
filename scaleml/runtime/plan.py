"""The plan: what a run is, as sent to each rank; immutable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from scaleml.data.shard_parts import ShardPart, parts_of_rank
from scaleml.devices import Gpu
from scaleml.faults import Fault, left_after_loss
from scaleml.models.augmentation import Augmentation
from scaleml.models.flat_model import FlatModel, Sparse
from scaleml.optim import Optimizer, RowSteps
from scaleml.runtime.held_out_score import ScoreRule
from scaleml.runtime.process_grid import ParameterPartition
from scaleml.runtime.saving import Origin, Saving
from scaleml.runtime.sparsity import in_words, why_dense, why_dense_updates
from scaleml.runtime.stop_rule import StopRule
from scaleml.runtime.train_state import TrainState
from scaleml.strategies import Layout, Strategy
from scaleml.strategies.base import ServerStrategy
from scaleml.telemetry.columns import Measures


@dataclass(frozen=True)
class Plan:
    """The mathematics of a run: the same on all ranks, but for where each of them starts."""

    model: FlatModel
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
    start: TrainState | None = None
    """Where to go on from: a warm start, or what earlier ranks have left to this one."""
    resumed: bool = False
    """Whether ``start`` is of this very run: an earlier generation of ranks has taken its first steps."""
    recovered: bool = False
    """Whether the ranks go on after a loss."""
    evaluated: tuple[Measures, ...] = ()
    """The newest evaluations before ``start``, of which the history may not have heard."""
    clock: float | None = None
    """What the training clock shows then; None for what ``start`` says."""
    began: int = 0
    """Rows that all ranks had consumed when the first of these ranks began; others may have taken over after a loss since."""
    taken: tuple[float, ...] = ()
    """Rows since then of each rank that trains, where ranks with a pace of their own go on after a loss."""
    bases: tuple[int, ...] = ()
    """Rows that are counted for each rank's number beside `taken`, where ranks with a pace of their own go on after a loss."""
    renumbered: bool = False
    """Whether ranks have other numbers than before the loss: what a server kept of each worker is not theirs."""
    looked: int = 0
    """Evaluations between `began` and ``start``, where ranks go on after a loss."""
    replaces_lost: bool = False
    """Whether others are to go on when ranks are lost, with or without replacements."""
    skips_nonfinite: bool = False
    """Whether rows whose loss or gradient is not finite are left out."""
    steps: RowSteps | None = None
    """What turns mean gradients into steps of scikit-learn's size, before the optimizer; None for nothing."""
    by_rows: bool = False
    """Whether gradients are divided by a batch's rows, not by its weight: no bias where weights differ, mean weight 1."""
    score: ScoreRule | None = None
    """How held-out rows are scored; None for the model's own score."""
    part_rows: int | None = None
    """Rows over all ranks that a gradient is computed of at a time, the parts' sums being added up; None for whole batches."""
    keep_end: bool = False
    """Whether the outcome says where training could go on from."""
    nonzeros: float | None = None
    """Stored values in a row of CSR data, on average; None where that is not known."""
    one_memory: bool = True
    """Whether all ranks share the memory of one host: there whole vectors travel fast."""
    augment: tuple[Augmentation, ...] = ()
    """How rows to train on are changed at random."""
    gpus: tuple[Gpu | None, ...] = ()
    """What GPU each rank has; empty for none at all. A server has none: its slice travels through the processor's memory."""
    change: str = ""
    """What the history says of a hand-over to these ranks, such as ``"workers=3"``."""
    snapshots: bool = False
    """Whether rank 0 keeps the parameters after each epoch, for whoever asks; needs a stop rule."""
    saving: Saving | None = None
    """Which checkpoints the run writes."""
    origin: Origin | None = None
    """The checkpoint that ranks begin from, rather than from the seed."""

    @property
    def device(self) -> str:
        """Where ranks that train compute, in words, if it is not the processor."""
        names = [("the CPU" if gpu is None else gpu.name) for gpu in self.gpus[: self.layout.workers]]
        found = " and ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names))
        return f", on {found}" if names else ""

    def gpu(self, rank: int) -> Gpu | None:
        """Return a rank's GPU, None for none."""
        return self.gpus[rank] if self.gpus else None

    @property
    def uses_nccl(self) -> bool:
        """Whether ranks that train talk by NCCL: where each has a GPU of its own."""
        gpus = [self.gpu(rank) for rank in range(self.layout.workers)]
        own = {gpu.identity for gpu in gpus if gpu is not None and gpu.nccl}
        return len(own) == len(gpus) > 1

    @property
    def keeps_points(self) -> bool:
        """Whether ranks keep recovery points: where they take their steps together, so that all can go back to one of them.

        Others go on as they are.
        """
        strategy = self.strategy
        if self.layout.servers:
            return self.replaces_lost and strategy.updates_a_batch(2) == 1
        return self.replaces_lost and strategy.synchronous and not strategy.shares_memory

    def after_loss(self, lost: Sequence[int], reached: int) -> Plan:
        """Return the plan of ranks that go on after these were lost, when all had come to step ``reached``."""
        return replace(self, faults=left_after_loss(self.faults, lost, reached), recovered=True)

    def with_workers(self, workers: int, gpus: Sequence[Gpu | None] = ()) -> Plan:
        """Return the plan of another number of ranks that train, with these GPUs."""
        layout = self.strategy.layout(workers)
        parts = None if self.part_rows is None else max(1, self.part_rows * workers // self.layout.workers)
        gpus = (*gpus, *[None] * layout.servers) if any(gpus) else ()
        return replace(self, layout=layout, part_rows=parts, gpus=gpus)

    @property
    def goes_on(self) -> bool:
        """Whether the ranks go on from a recovery point."""
        return self.recovered and self.resumed

    @property
    def total(self) -> int:
        """Rows that ranks have to consume since `began`."""
        return self.rows * self.epochs - self.began

    @property
    def goal(self) -> int:
        """Rows that this generation of ranks still has to consume."""
        return self.rows * self.epochs - (0 if self.start is None else self.start.consumed)

    @cached_property
    def rows(self) -> int:
        """Rows of training data."""
        return sum(self.shard_sizes)

    @property
    def rows_at_once(self) -> int:
        """Rows over all ranks that are in use together."""
        return min(self.rows, self.batch_size if self.part_rows is None else self.part_rows)

    @property
    def serving(self) -> ServerStrategy:
        """The strategy, as a run with servers sees it."""
        assert isinstance(self.strategy, ServerStrategy), (
            f"{self.strategy!r} has servers, but does not say what they do"
        )
        return self.strategy

    @cached_property
    def why_dense(self) -> str:
        """Why gradients are whole vectors; nothing where they are sparse."""
        if any(self.gpus):
            return "a GPU has whole vectors: use device='cpu'"
        filled = None if self.nonzeros is None else self.nonzeros * self.batch_size
        workers, near = self.layout.workers, self.one_memory
        strategy, optimizer = self.strategy, self.optimizer
        return why_dense(
            *(self.model, strategy, optimizer, self.steps),
            filled=filled,
            workers=workers,
            one_memory=near,
            in_parts=self.part_rows is not None,
        )

    @property
    def sparse(self) -> bool:
        """Whether gradients are of what a batch touches; updates are, too, but for `why_dense_updates`."""
        return not self.why_dense

    @cached_property
    def why_dense_updates(self) -> str:
        """Why an update is of all parameters, whatever gradients are; nothing where it may be of what a batch touches."""
        return why_dense_updates(self.model, self.strategy, self.optimizer, self.steps)

    @property
    def form(self) -> str:
        """The form of gradients and updates in words, where there was something to decide."""
        return in_words(self.model, self.strategy, self.why_dense, self.why_dense_updates)

    @cached_property
    def partition(self) -> ParameterPartition:
        """Which parameters each rank holds."""
        size, layout = self.model.size, self.layout
        if not layout.servers:
            return ParameterPartition.replicated(size, layout.workers)
        return ParameterPartition.of_servers(size, layout.workers, layout.servers, self.width)

    @property
    def width(self) -> int:
        """Parameters that belong together, of each column of X, where updates are sparse; else 1."""
        return self.model.width if self.sparse and isinstance(self.model, Sparse) else 1

    def owned(self, rank: int) -> tuple[ShardPart, ...]:
        """Return the shards, and parts of shards, of a rank: neighbours, as much of each batch as any other rank has."""
        if self.layout.is_server(rank):
            return ()
        return parts_of_rank(len(self.shard_sizes), self.layout.workers, rank)

    @property
    def opened(self) -> list[list[int]]:
        """Which shards each rank that trains reads."""
        return [[part.shard for part in self.owned(rank)] for rank in range(self.layout.workers)]
