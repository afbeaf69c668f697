"""The loop of a rank that trains: steps, boundaries, evaluations. It knows a group and its data, nothing of Dask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from time import perf_counter as clock
from typing import Any
from weakref import WeakMethod

import numpy as np

from scaleml.comm.reducing import placement
from scaleml.compression import Stamp
from scaleml.data.shards import Batches
from scaleml.runtime.asynchronous_loop import train_asynchronously
from scaleml.runtime.command_handler import CommandHandler
from scaleml.runtime.commands import CommandQueue
from scaleml.runtime.coordinator import Pace
from scaleml.runtime.early_stopping import EarlyStopping
from scaleml.runtime.evaluation import Evaluation
from scaleml.runtime.fault_injection import FaultInjector
from scaleml.runtime.gossip import GossipCoordinator
from scaleml.runtime.gradient import TAIL, Gradients, Update
from scaleml.runtime.outcome import outcome_of
from scaleml.runtime.parameter_server import ParameterServerClient
from scaleml.runtime.parameter_server.message_format import room
from scaleml.runtime.plan import Outcome, Plan
from scaleml.runtime.shared_memory import Shared
from scaleml.runtime.sparse_gradient import SparseGradients
from scaleml.telemetry.recorder import Recorder

Report = Callable[..., None]
"""``report(kind, **facts)``: tells the run's supervisor what happened, at once."""


class TrainingLoop:
    """One training rank.

    It is itself the context that strategies see: ``group``, ``optimizer``, ``servers``, ``neighbours``, ``gradient``, ``step``.

    Attributes
    ----------
    committed : bool
        Whether all ranks hold the same parameters now.

    Parameters
    ----------
    plan : Plan
        The run.
    group : Group
        All ranks of the run.
    batches : Batches
        This rank's data.
    held_out : tuple or None
        This rank's part of the validation data: X, y, weights.
    command_queue : CommandQueue
        Commands, if this is rank 0.
    report : callable
        Tells the supervisor.
    """

    clients = None

    def __init__(
        self,
        plan: Plan,
        group: Any,
        batches: Batches,
        held_out: Any,
        command_queue: CommandQueue,
        report: Report,
        recorder: Recorder,
    ) -> None:
        self.plan = plan
        self.group, self._mesh = group, group.mesh
        self.strategy = plan.strategy.fitted(
            plan.network.size * plan.network.dtype.itemsize, placement(group.mesh.hosts, group.ranks)
        )
        self.mailbox = command_queue
        self.report = report
        self.recorder = recorder
        self.batch_size = plan.batch_size
        before = plan.handover
        self._rows = plan.rows
        self.step = 0 if before is None else before.step
        self.rows_done = 0 if before is None else before.rows
        self.epoch, consumed = divmod(self.rows_done, self._rows)
        self._clock = 0.0 if before is None else before.clock
        recorder.samples = 0 if before is None else before.samples
        self.stopping = self.switching = False
        size, layout = plan.network.size, plan.layout
        self.shared = Shared(plan, group, recorder) if plan.strategy.shares_memory else None
        if self.shared is not None:
            self.w = self.shared.w
        else:
            w = group.buffer(0 if plan.sparse else size, plan.dtype)  # sparse: nothing is sent from it
            self.w = w if len(w) else np.empty(size, plan.dtype)
        self.w[:] = plan.network.init(plan.seed) if plan.start is None else plan.start.params
        items = 0 if plan.sparse else room(plan) if layout.servers else size + TAIL
        buffer = group.buffer(items, plan.dtype)
        self.gradients = Gradients(plan, group, batches, buffer[: size + TAIL], recorder)
        self.gradients.consumed = consumed
        self.gradient: Callable[..., Any] = self.gradients.gradient
        sparse = SparseGradients(plan, self.gradients, not layout.servers) if plan.sparse else None
        if sparse is not None:
            self.gradient = sparse.gradient
        self.optimizer = Update(plan, group, recorder)
        self._stamp = Stamp(plan.seed, 0, group.rank, matrices=plan.network.matrices)
        self.state = plan.optimizer.init(size, plan.dtype) | ({} if plan.steps is None else plan.steps.slots())
        self.strategy.begin(self.w, self.state)
        self.committed = True
        if plan.start is not None:
            self.state |= {name: np.array(array) for name, array in plan.start.state.items() if name in self.state}
        self.workers = group.split(0, group.rank) if layout.servers else group
        if layout.servers:
            group.buffer(0, plan.dtype)  # the servers' outboxes: making buffers is collective
        self.servers = (
            ParameterServerClient(plan, group, self.optimizer, recorder, buffer, sparse) if layout.servers else None
        )
        self.neighbours = GossipCoordinator(plan, group, self.w, recorder)
        self.pace: Pace | None = self.servers or self.shared or (None if plan.strategy.synchronous else self.neighbours)
        self.evaluation = Evaluation(plan, self.workers, held_out, recorder)
        self.suffering = FaultInjector(plan.faults, group, self.gradients, mark=WeakMethod(self.mark), since=self.step)
        self._orders = CommandHandler(self, command_queue)
        self.progress = EarlyStopping(plan, self.workers, self.optimizer, self.evaluation)
        # Given the loop, not holding it: a cycle would keep mapped memory until it is collected.
        self.on_epoch: Callable[[TrainingLoop], None] | None = None

    def run(self) -> Outcome:
        """Train to the end, or until stopped."""
        # What overflows is found by its loss and ends in an error that says so: NumPy need not warn as well.
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            return self._run()

    def _run(self) -> Outcome:
        self._warm_up()
        self.group.barrier()
        self.recorder.begin(clock(), self._clock)
        if self.plan.handover is not None:
            if self.group.rank == 0:
                self.mark(f"strategy={self.plan.strategy!r}", "strategy")
            if self.plan.evaluate_every:
                self.evaluation.passed(self.rows_done)
        self.report("entered", topology=getattr(self.strategy, "topology", None))
        self.evaluation.at(self.w, self.step)
        if self.pace is not None:
            train_asynchronously(self, self.pace)
        else:
            self._train_together()
        self.note()
        if not self.switching and (not self.progress.converged or self.pace is not None):
            self.evaluation.at(self.w, self.step)
            if self.pace is None and self.progress.is_due:
                self.decide(self.w, shared=self.strategy.replicated)
            elif self.pace is not None and self.plan.stop is not None and self._lacks_an_epoch:
                self.decide(self.w, shared=False, epochs=1)
        return outcome_of(self)

    @property
    def leaving(self) -> bool:
        """Whether the rank was told to end here."""
        return self.stopping or self.switching

    @property
    def steps(self) -> int:
        """Steps so far."""
        return self.step

    def decide(self, w: Any, *, shared: bool, epochs: int | None = None) -> bool:
        """Take in the epoch that is over and tell of it; True if the run is to end; see `EarlyStopping.decide`."""
        self.progress.decide(w, self.state, shared=shared, epochs=epochs)
        if self.on_epoch is not None:
            self.on_epoch(self)
        return self.progress.converged

    @property
    def _lacks_an_epoch(self) -> bool:
        """Whether the last epoch of an asynchronous run has not been looked at: its evaluation is the one at the end."""
        ended = self.stopping or self.progress.converged
        return not ended and len(self.progress.losses) < self.plan.epochs

    @property
    def last_evaluated(self) -> Any:
        """The parameters that were evaluated last."""
        return self.evaluation.kept

    def last_good(self) -> Any:
        """Return the parameters of the last good step."""
        return np.array(self.w) if np.isfinite(self.w).all() else self.evaluation.kept

    def _warm_up(self) -> None:
        # First calls of BLAS and the first touch of memory are no part of training.
        self.gradients.count = min(self.batch_size, self._rows)
        self.gradient(self.w)
        self.recorder.compute = 0.0

    def _train_together(self) -> None:
        boundary, epochs = True, self.plan.epochs
        while self.epoch < epochs:
            if boundary:
                if self.is_told_to_leave():
                    break
                if (self.rows_done >= self.evaluation.due_at or self.progress.is_due) and self._look_at_progress():
                    break
            elif self.mailbox.pending:
                self._orders.listen()
            epoch = self.epoch
            self.take_step()
            self.committed = self.epoch == epochs or self.strategy.commits(self.step - 1)
            boundary = self.committed or self.strategy.is_boundary(self.step - 1, self.epoch > epoch)
        if not self.committed:
            self.mean(self.w)

    def _look_at_progress(self) -> bool:
        """Evaluate if that is due; return whether the run is to end."""
        evaluation = self.evaluation
        w = self.w if self.committed else evaluation.aside(lambda: self.mean(np.array(self.w)))
        if self.rows_done >= evaluation.due_at:
            self.note()
            evaluation.at(w, self.step)
            evaluation.passed(self.rows_done)
        return self.progress.is_due and self.decide(w, shared=self.strategy.replicated)

    def is_told_to_leave(self) -> bool:
        """Apply the commands that are due at this boundary; return whether one of them was to end here."""
        if self.mailbox.pending or self.group.control != self._orders.applied:
            self._orders.obey()
        return self.leaving

    def mean(self, array: Any) -> Any:
        """Give all ranks the mean of what they have, in place."""
        self.group.allreduce(array)
        array /= self.group.size
        return array

    @property
    def stamp(self) -> Stamp:
        """What codecs must know of this rank and step."""
        return replace(self._stamp, step=self.step)

    @property
    def is_last_step(self) -> bool:
        """Whether the run ends with this step."""
        return self.epoch == self.plan.epochs - 1 and self.ends_epoch

    @property
    def ends_epoch(self) -> bool:
        """Whether the epoch ends with this step."""
        return self.gradients.consumed + self.batch_size >= self._rows

    @property
    def epoch_end(self) -> int:
        """The step with which the epoch ends."""
        return self.step - (self.gradients.consumed - self._rows) // self.batch_size - 1

    def take_step(self) -> None:
        """Take one step of the strategy, on the next batch."""
        gradients, recorder = self.gradients, self.recorder
        if self.step >= self.suffering.next:
            self.suffering.begin(self.step)
        left = self._rows - gradients.consumed
        gradients.count = count = self.batch_size if self.batch_size < left else left
        self._mesh.step = self.step
        self.strategy.step(self.w, self.state, self)
        self.step += 1
        self.rows_done += count
        recorder.samples += gradients.last_rows
        recorder.updates += 1
        if count < left:
            gradients.consumed += count
        else:
            gradients.consumed = 0
            self.epoch += 1
            self.progress.epoch_over(self.state)
        now = clock()
        if now >= recorder.due:
            recorder.flush(now, self.step, self.rows_done / self._rows)

    def note(self) -> None:
        """Write what has gathered into the history."""
        self.recorder.flush(clock(), self.step, self.rows_done / self._rows)

    def mark(self, text: str, what: str = "setting", fault: dict[str, Any] | None = None) -> None:
        """Have the history say what changed: a setting, the strategy, or a fault, as `describe` has it."""
        now = self.recorder.clock(clock())
        self.report("mark", time=now, step=self.step, text=text, what=what, fault=fault)
