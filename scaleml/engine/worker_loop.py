"""The loop of a rank that trains: steps, boundaries, evaluations. It knows a group and its data, nothing of Dask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from time import perf_counter as clock
from typing import Any
from weakref import WeakMethod

import numpy as np

from scaleml.compression import Stamp
from scaleml.data.shards import Batches
from scaleml.engine.commands import Mailbox
from scaleml.engine.evaluation import Evaluation
from scaleml.engine.gradients import TAIL, Gradients, Update
from scaleml.engine.obeying import Obeying
from scaleml.engine.outcome import outcome_of
from scaleml.engine.servers import Servers
from scaleml.engine.servers.wire import HEAD
from scaleml.engine.shared import Shared
from scaleml.engine.sparse import SparseGradients
from scaleml.engine.spec import Outcome, Plan
from scaleml.engine.stopping import Stopping
from scaleml.engine.suffering import Suffering
from scaleml.strategies import Hogwild
from scaleml.telemetry.recorder import Recorder

Report = Callable[..., None]
"""``report(kind, **facts)``: tells the run's supervisor what happened, at once."""


class WorkerLoop:
    """One training rank.

    It is itself the context that strategies see: ``group``, ``optimizer``, ``servers``, ``gradient``, ``step``.

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
    mailbox : Mailbox
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
        mailbox: Mailbox,
        report: Report,
        recorder: Recorder,
    ) -> None:
        self.plan = plan
        self.group = group
        self.strategy = plan.strategy
        self.mailbox = mailbox
        self.report = report
        self.recorder = recorder
        self.batch_size = plan.batch_size
        self.step = 0
        self.epoch = 0
        self._rows = plan.rows
        self._rows_done = 0
        self.stopping = False
        size, layout = plan.network.size, plan.layout
        self.shared = Shared(plan, group, recorder) if isinstance(plan.strategy, Hogwild) else None
        if self.shared is not None:
            self.w = self.shared.w
        else:
            w = group.buffer(0 if plan.sparse else size, plan.dtype)  # sparse: nothing is sent from it
            self.w = w if len(w) else np.empty(size, plan.dtype)
        self.w[:] = plan.network.init(plan.seed) if plan.start is None else plan.start.params
        room = 0 if plan.sparse else size + (HEAD if layout.servers else TAIL)
        buffer = group.buffer(room, plan.dtype)
        self.gradients = Gradients(plan, group, batches, buffer[: size + TAIL], recorder)
        self.gradient: Callable[..., Any] = self.gradients.gradient
        sparse = SparseGradients(plan, self.gradients, not layout.servers) if plan.sparse else None
        if sparse is not None:
            self.gradient = sparse.gradient
        self.optimizer = Update(plan, group, recorder)
        self._stamp = Stamp(plan.seed, 0, group.rank, matrices=plan.network.matrices)
        self.state = plan.optimizer.init(size, plan.dtype)
        if plan.start is not None:
            self.state |= {name: np.array(array) for name, array in plan.start.state.items() if name in self.state}
        self._workers = group.split(0, group.rank) if layout.servers else group
        if layout.servers:
            group.buffer(0, plan.dtype)  # the servers' outboxes: making buffers is collective
        self.servers = Servers(plan, group, self.optimizer, recorder, buffer, sparse) if layout.servers else None
        self.pace = self.servers or self.shared
        self._evaluation = Evaluation(plan, self._workers, held_out, recorder)
        self.suffering = Suffering(plan.faults, group, self.gradients, mark=WeakMethod(self.mark))
        self._orders = Obeying(self, mailbox)
        self.progress = Stopping(plan, self._workers, self.optimizer, self._evaluation)

    def run(self) -> Outcome:
        """Train to the end, or until stopped."""
        # What overflows is found by its loss and ends in an error that says so: NumPy need not warn as well.
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            return self._run()

    def _run(self) -> Outcome:
        self._warm_up()
        self.group.barrier()
        self.recorder.begin(clock())
        self.report("entered")
        self._evaluation.at(self.w, 0)
        if self.pace is not None:
            self._train_at_own_pace(self.pace)
        else:
            self._train_together()
        self.note()
        if not self.progress.converged or self.pace is not None:
            self._evaluation.at(self.w, self.step)
            if self.pace is None and self.progress.is_due:
                self.progress.decide(self.w, self.state, shared=self.strategy.replicated)
            elif self.servers is not None and self.plan.stop is not None and self._lacks_an_epoch:
                self.progress.decide(self.w, self.state, shared=False, epochs=1)
        return outcome_of(self)

    @property
    def steps(self) -> int:
        """Steps so far."""
        return self.step

    @property
    def _lacks_an_epoch(self) -> bool:
        """Whether the last epoch with servers has not been looked at: the servers' last evaluation is the one at the end."""
        ended = self.stopping or self.progress.converged
        return not ended and len(self.progress.losses) < self.plan.epochs

    @property
    def last_evaluated(self) -> Any:
        """The parameters that were evaluated last."""
        return self._evaluation.kept

    def last_good(self) -> Any:
        """Return the parameters of the last good step."""
        return np.array(self.w) if np.isfinite(self.w).all() else self._evaluation.kept

    def _warm_up(self) -> None:
        # First calls of BLAS and the first touch of memory are no part of training.
        self.gradients.count = min(self.batch_size, self._rows)
        self.gradient(self.w)
        self.recorder.compute = 0.0

    def _train_together(self) -> None:
        evaluation, group, mailbox, orders = self._evaluation, self.group, self.mailbox, self._orders
        committed = True
        while self.epoch < self.plan.epochs:
            if committed:
                if mailbox.pending or group.control != orders.applied:
                    orders.obey()
                    if self.stopping:
                        break
                if self._rows_done >= evaluation.due_at:
                    self.note()
                    evaluation.at(self.w, self.step)
                    evaluation.passed(self._rows_done)
                if self.progress.is_due and self.progress.decide(self.w, self.state, shared=self.strategy.replicated):
                    break
            self._take_step()
            committed = self.strategy.commits(self.step - 1)

    def _train_at_own_pace(self, pace: Servers | Shared) -> None:
        while not pace.done and not self.progress.converged:
            if self.mailbox.pending or self.group.control != self._orders.applied:
                self._orders.obey()
                if self.stopping:
                    break
            self._take_step()
            pace.stepped(self.gradients.last_rows)
            self._catch_up(pace)
            while pace.held:  # called away from its waiting
                pace.wait(self.w)
                self._catch_up(pace)
        while not pace.leave():
            self._catch_up(pace)
            if self.group.control != self._orders.applied:
                self._orders.obey()
        self._catch_up(pace)
        pace.collect(self.w, self._workers)

    @property
    def stamp(self) -> Stamp:
        """What codecs must know of this rank and step."""
        return replace(self._stamp, step=self.step)

    @property
    def is_last_step(self) -> bool:
        """Whether the run ends with this step."""
        gradients = self.gradients
        return self.epoch == self.plan.epochs - 1 and gradients.consumed + gradients.count >= self._rows

    def _take_step(self) -> None:
        gradients, recorder = self.gradients, self.recorder
        if self.step >= self.suffering.next:
            self.suffering.begin(self.step)
        left = self._rows - gradients.consumed
        gradients.count = count = self.batch_size if self.batch_size < left else left
        self.group.step = self.step
        self.strategy.step(self.w, self.state, self)
        self.step += 1
        self._rows_done += count
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
            recorder.flush(now, self.step, self._rows_done / self._rows)

    def _catch_up(self, pace: Servers | Shared) -> None:
        """Take part in the evaluations that are due: all workers do, on rank 0's parameters."""
        while self._evaluation.done < pace.evaluations_due:
            self.note()
            if self.group.rank == 0:
                self._evaluation.aside(lambda: pace.copy(self.w))
            self._evaluation.of_rank_0(self.w, self.step)
            if self.plan.stop is not None and not self.progress.converged:
                self.progress.decide(self._evaluation.kept, self.state, shared=False, epochs=1)

    def note(self) -> None:
        """Write what has gathered into the history."""
        self.recorder.flush(clock(), self.step, self._rows_done / self._rows)

    def mark(self, text: str) -> None:
        """Have the history say what changed."""
        self.report("mark", time=self.recorder.clock(clock()), step=self.step, text=text)
