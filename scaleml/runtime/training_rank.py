"""A rank that trains: its state and the parts that work on it, put together; to strategies it is the context."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import final
from weakref import WeakMethod

import numpy as np

from scaleml.arrays import Array
from scaleml.comm.collectives import placement
from scaleml.comm.communicator import Communicator
from scaleml.compression import CodecContext
from scaleml.compression.error_feedback import PREFIX
from scaleml.data.batches import Batches
from scaleml.data.piece import Arrays
from scaleml.data.stream import Stream
from scaleml.devices import host_copy
from scaleml.faults import Fault
from scaleml.models.flat_model import matrices_of
from scaleml.runtime.coordinator import AsynchronousCoordinator
from scaleml.runtime.early_stopping import EarlyStopping
from scaleml.runtime.evaluation import Evaluation
from scaleml.runtime.fault_injection import FaultInjector, facts_of
from scaleml.runtime.first_state import first_state
from scaleml.runtime.gossip import GossipCoordinator
from scaleml.runtime.gradient import TAIL, Gradient
from scaleml.runtime.gradient_noise import GradientNoise
from scaleml.runtime.optimizer_step import OptimizerStep
from scaleml.runtime.parameter_server.client import ParameterServerClient
from scaleml.runtime.plan import Plan
from scaleml.runtime.process_grid import ProcessGrid
from scaleml.runtime.queued_step import QueuedStep
from scaleml.runtime.rank_device import RankDevice
from scaleml.runtime.reporting import Report
from scaleml.runtime.shared_memory import SharedMemoryCoordinator
from scaleml.runtime.train_state import TrainState
from scaleml.runtime.update_form import UpdateForm
from scaleml.strategies import Strategy
from scaleml.telemetry.recorder import Recorder


@final
class TrainingRank:
    """One training rank.

    Parameters
    ----------
    plan : Plan
        The run.
    world : Communicator
        All ranks of the run.
    batches : Batches
        This rank's data.
    held_out : Arrays, Stream or None
        This rank's part of the validation data: X, y, weights.
    report : Report
        Tells the supervisor.
    recorder : Recorder
        This rank's rows of the history.

    Attributes
    ----------
    state : TrainState
        All that it needs to go on.
    device : RankDevice
        Where its arrays lie.
    grid : ProcessGrid
        Its place among the others.
    strategy : Strategy
        The one in force, its choices made.
    epoch : int
        Epochs that are over.
    stopping, switching, changing : bool
        Whether it was told to end here; switching, others go on; changing, under the same strategy.
    """

    def __init__(
        self,
        plan: Plan,
        world: Communicator,
        batches: Batches,
        held_out: Arrays | Stream | None,
        report: Report,
        recorder: Recorder,
    ) -> None:
        self.plan = plan
        self.report = report
        self.recorder = recorder
        self.stopping = self.switching = self.changing = False
        self.on_epoch: Callable[[TrainingRank], None] | None = None  # given the rank, not holding it: no cycle
        self.device = device = RankDevice(plan, world.rank)
        world, batches = device.around(world), device.batches(batches)
        self.grid = grid = ProcessGrid.build(world, plan.layout, plan.partition)
        self.world, self.group = world, grid.workers
        self.strategy = plan.strategy.resolve(plan.model.size * plan.model.dtype.itemsize, placement(world.hosts))
        self._now, self._stamps, self._rows = world.clock.now, world.stamps, plan.rows
        self._memory = SharedMemoryCoordinator(plan, world, recorder) if plan.strategy.shares_memory else None
        shared = None if self._memory is None else self._memory.w
        self.state, buffer = first_state(plan, world, self.strategy, shared, device.vectors)
        self.gradients = Gradient(plan, world, batches, buffer[: len(self.state.params) + TAIL], recorder)
        step = OptimizerStep(plan, world, self.state, recorder)
        self.gradient, self.optimizer = device.computing(self.gradients, step, world, self.state, recorder)
        self.noise = GradientNoise(plan, self.group, self.optimizer, recorder)
        self.form = UpdateForm(plan, self.gradients, self.gradient, step, self.state)
        self.touched_gradient = self.form.follow()  # bound: called each step
        self._codec_context = CodecContext(plan.seed, 0, self.group.rank, matrices=matrices_of(plan.model))
        self._client: ParameterServerClient | None = None
        if plan.layout.servers:
            self._client = ParameterServerClient(plan, grid, step, recorder, buffer, self.form, self.state)
            world.buffer(0, plan.model.dtype)  # the servers' outboxes: making buffers is collective
        self._neighbours = GossipCoordinator(plan, world, self.state.params, recorder)
        self.coordinator: AsynchronousCoordinator | None = self._client or self._memory
        if self.coordinator is None and not plan.strategy.synchronous:
            self.coordinator = self._neighbours
        self.evaluation = Evaluation(plan, grid, held_out, self.state, recorder, device)
        self.early_stopping = EarlyStopping(plan, self.group, self.state, self.optimizer, self.evaluation)
        self._follow_state()
        self.faults = FaultInjector(
            self.state, world, self.gradients, mark=WeakMethod(self.mark_fault), since=self.state.step
        )

    # --- what strategies see --------------------------------------------------------------------------------------

    @property
    def w(self) -> Array:
        """What this rank holds of the parameters, to be read."""
        return self.form.parameters()

    @property
    def step(self) -> int:
        """Steps so far."""
        return self.state.step

    @property
    def servers(self) -> ParameterServerClient:
        """The servers, of a run that has some."""
        assert self._client is not None, f"{self.strategy!r} has no servers"
        return self._client

    @property
    def has_servers(self) -> bool:
        """Whether servers hold the parameters."""
        return self._client is not None

    @property
    def shared(self) -> SharedMemoryCoordinator:
        """The vector that all ranks write."""
        assert self._memory is not None, f"{self.strategy!r} does not share memory"
        return self._memory

    @property
    def neighbours(self) -> GossipCoordinator:
        """The other ranks, of a run without servers."""
        return self._neighbours

    @property
    def codec_context(self) -> CodecContext:
        """What codecs must know of this rank and step."""
        return replace(self._codec_context, step=self.state.step)

    @property
    def ends_epoch(self) -> bool:
        """Whether the epoch ends with this step."""
        gradients = self.gradients
        return gradients.consumed + gradients.batch_size >= self._rows

    @property
    def is_last_step(self) -> bool:
        """Whether the run ends with this step."""
        return self.epoch == self.plan.epochs - 1 and self.ends_epoch

    # --- its place in the run -------------------------------------------------------------------------------------

    @property
    def batch_size(self) -> int:
        """Rows of a step over all ranks."""
        return self.gradients.batch_size

    @batch_size.setter
    def batch_size(self, rows: int) -> None:
        self.state.batch_size = self.gradients.batch_size = rows
        self.optimizer.follow_batch_size(rows)
        self.touched_gradient = self.form.follow()

    @property
    def epoch_end(self) -> int:
        """The step with which the epoch ends."""
        return self.state.step - (self.gradients.consumed - self._rows) // self.batch_size - 1

    @property
    def leaving(self) -> bool:
        """Whether the rank was told to end here."""
        return self.stopping or self.switching

    def take_step(self) -> None:
        """Take one step of the strategy, on the next batch."""
        if self._stamps.ended:  # not all strategies talk in every step
            self.world.check()
        gradients, recorder, state = self.gradients, self.recorder, self.state
        step = state.step
        if step >= self.faults.next:
            self.faults.begin(step)
        left, batch = self._rows - gradients.consumed, gradients.batch_size
        gradients.count = count = batch if batch < left else left
        self._stamps.step = step
        if step < self.noise.due:
            self.strategy.step(state.params, state.arrays, self)
        else:
            self.noise.take_step(self.strategy, state.params, state.arrays, self, batch)
        state.step = step + 1
        state.consumed += count
        recorder.samples += gradients.last_rows
        recorder.updates += 1
        if count < left:
            gradients.consumed += count
        else:
            gradients.consumed = 0
            self.epoch = gradients.batches.epoch = gradients.batches.epoch + 1
            self.early_stopping.epoch_over()
        now = self._now()
        if now >= recorder.due:
            recorder.flush(now, state.step, state.consumed / self._rows)

    def follow(self, strategy: Strategy) -> None:
        """Go on under another strategy, from the same parameters and the same optimizer's slots on all ranks."""
        state = self.state
        self.strategy = strategy.resolve(state.params.nbytes, placement(self.world.hosts))
        self.optimizer.follow(strategy)
        self.touched_gradient = self.form.follow(strategy)
        state.replicated = strategy.replicated
        strategy.begin(state.params, state.arrays)

    def average_private(self, *, goes_on: bool = False) -> None:
        """Leave in the state but what the optimizer keeps, the same on all ranks that train: where they differ, the mean; collective.

        Where the same strategy ``goes_on``, what it keeps alike on all ranks stays.
        """
        arrays = self.state.arrays
        self.evaluation.buffers.agree()
        self.form.end()
        if not goes_on:
            self.strategy.end(arrays)
        private = self.state.private
        for name in [name for name in arrays if name in private]:  # in the order that all ranks have
            if name.startswith(PREFIX):
                del arrays[name]
            elif name != "schedule":
                self.mean(arrays[name])

    def mean(self, array: Array) -> Array:
        """Give all ranks the mean of what they have, in place; collective."""
        self.group.allreduce(array)
        array /= self.group.size
        return array

    def decide(self, w: Array, *, shared: bool, epochs: int | None = None) -> bool:
        """Take in the epoch that is over and tell of it; True if the run is to end; see `EarlyStopping.decide`."""
        self.early_stopping.decide(w, shared=shared, epochs=epochs)
        if self.on_epoch is not None:
            self.on_epoch(self)
        return self.early_stopping.converged

    # --- its state ------------------------------------------------------------------------------------------------

    def snapshot(self) -> TrainState:
        """Return a copy of the state as it is now."""
        self.look()
        state = self.state
        state.samples, state.clock = self.recorder.samples, self.recorder.last
        state.buffers = self.evaluation.buffers.now()
        state.next_evaluation, state.random = self.evaluation.due_at, self.gradients.batches.random_state()
        return state.snapshot()

    def restore(self, state: TrainState) -> None:
        """Go back to a snapshot of this rank."""
        self.state.restore(state)
        self._follow_state()
        self.evaluation.due_at = self.state.next_evaluation
        self.gradients.batches.set_random_state(self.state.random)

    def _follow_state(self) -> None:
        """Derive from the state where in the epoch the rank is, and what its recorder has counted."""
        state, gradients = self.state, self.gradients
        gradients.batches.epoch, gradients.consumed = divmod(state.consumed, self._rows)
        self.epoch = gradients.batches.epoch
        gradients.batch_size = state.batch_size or self.plan.batch_size
        self.touched_gradient = self.form.follow()
        self.evaluation.buffers.follow()
        self.recorder.samples = state.samples
        self.noise.begin(state.step, self.strategy, gradients.batch_size)
        self.evaluation.passed(state.consumed)

    def last_good(self) -> Array | None:
        """Return what this rank holds of the parameters of the last good step."""
        kept = [self.w, self.optimizer.last_good, self.evaluation.kept]
        found = (host_copy(w) for w in kept if w is not None)
        return next((w for w in found if np.isfinite(w).all()), None)

    def look(self) -> None:
        """Have all that a GPU was told to do done, and known."""
        if isinstance(self.optimizer, QueuedStep):
            self.optimizer.look()

    # --- what it notes --------------------------------------------------------------------------------------------

    def note(self) -> None:
        """Write what has gathered into the history."""
        self.recorder.flush(self._now(), self.state.step, self.state.consumed / self._rows)

    def mark(self, text: str, what: str = "setting") -> None:
        """Have the history say what changed: a ``"setting"`` or the ``"strategy"``."""
        self.report("mark", time=self.recorder.clock(self._now()), step=self.state.step, text=text, what=what)

    def mark_fault(self, fault: Fault) -> None:
        """Have the history say which fault begins."""
        self.report("mark", time=self.recorder.clock(self._now()), step=self.state.step, **facts_of(fault))
