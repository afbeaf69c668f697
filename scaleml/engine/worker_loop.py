"""The loop of a rank that trains: steps, boundaries, evaluations. It knows a group and its data, nothing of Dask."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from time import perf_counter as clock
from typing import Any

import numpy as np

from scaleml.comm import Aborted
from scaleml.data.shards import Batches
from scaleml.engine.apart import train_apart
from scaleml.engine.commands import Command, Mailbox, fault_from, strategy_from
from scaleml.engine.evaluation import Evaluation
from scaleml.engine.gossiping import Neighbours
from scaleml.engine.gradients import TAIL, Gradients, Update
from scaleml.engine.outcome import outcome_of
from scaleml.engine.serving import Servers
from scaleml.engine.spec import Outcome, Plan
from scaleml.engine.stopping import Stopping
from scaleml.faults import Crash, Fault, InjectedCrash, Kill, Slow
from scaleml.strategies import Strategy
from scaleml.telemetry.recorder import Recorder

Report = Callable[..., None]
"""``report(kind, **facts)``: tells the run's supervisor what happened, at once."""


class WorkerLoop:
    """One training rank.

    It is itself the context that strategies see: ``group``, ``optimizer``, ``servers``, ``neighbours``, ``gradient``, ``step``.

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
        self._applied = 0
        self._faults = [fault for fault in plan.faults if fault.rank == group.rank]
        size = plan.network.size
        self.w = group.buffer(size, plan.dtype)
        self.w[:] = plan.network.init(plan.seed) if plan.start is None else plan.start.params
        buffer = group.buffer(size + TAIL, plan.dtype)
        self._gradients = Gradients(plan, group, batches, buffer, recorder, self._faults)
        self.gradient = self._gradients.gradient
        self.optimizer = Update(plan, group, recorder)
        self.state = plan.optimizer.init(size, plan.dtype)
        self._own_state = set(self.state)
        self._committed = True
        self.strategy.begin(self.w, self.state)
        if plan.start is not None:
            self.state |= {name: np.array(array) for name, array in plan.start.state.items() if name in self.state}
        layout = plan.layout
        if layout.servers:
            group.buffer(0, plan.dtype)  # the servers' outboxes: making buffers is collective
        self.workers = group.split(0, group.rank) if layout.servers else group
        self.servers = Servers(plan, group, self.optimizer, recorder) if layout.servers else None
        self.neighbours = Neighbours(plan, group, self.w, recorder)
        self.evaluation = Evaluation(plan, self.workers, held_out, recorder)
        self.progress = Stopping(plan, self.workers, self.optimizer, self.evaluation)

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
        self.evaluation.at(self.w, 0)
        if self.strategy.synchronous:
            self._train_together()
        else:
            train_apart(self)
        self.note()
        if not self.progress.converged or not self.strategy.synchronous:
            self.evaluation.at(self.w, self.step)
            if self.strategy.synchronous and self.progress.is_due:
                self.progress.decide(self.w, self.state, shared=self.strategy.replicated)
        return outcome_of(self)

    @property
    def steps(self) -> int:
        """Steps so far."""
        return self.step

    def last_good(self) -> Any:
        """Return the parameters of the last good step."""
        return np.array(self.w) if np.isfinite(self.w).all() else self.evaluation.kept

    def _warm_up(self) -> None:
        # First calls of BLAS and the first touch of memory are no part of training.
        self._gradients.count = min(self.batch_size, self._rows)
        self.gradient(self.w)
        self.recorder.compute = 0.0

    def _train_together(self) -> None:
        boundary = True
        while self.epoch < self.plan.epochs:
            if boundary:
                if self.is_told_to_stop():
                    break
                if (self._rows_done >= self.evaluation.due_at or self.progress.is_due) and self._look_at_progress():
                    break
            elif self.mailbox.pending:
                self._listen()
            last, epoch_over = self.is_last_step, self.ends_epoch
            self.take_step()
            self._committed = last or self.strategy.commits(self.step - 1)
            boundary = self._committed or self.strategy.is_boundary(self.step - 1, epoch_over)
        if not self._committed:
            self.mean(self.w)

    def _look_at_progress(self) -> bool:
        """Evaluate if that is due; return whether the run is to end."""
        evaluation, progress = self.evaluation, self.progress
        w = self.w if self._committed else evaluation.aside(lambda: self.mean(np.array(self.w)))
        if self._rows_done >= evaluation.due_at:
            self.note()
            evaluation.at(w, self.step)
            evaluation.passed(self._rows_done)
        return progress.is_due and progress.decide(w, self.state, shared=self.strategy.replicated)

    def mean(self, array: Any) -> Any:
        """Give all ranks the mean of what they have, in place."""
        self.group.allreduce(array)
        array /= self.group.size
        return array

    @property
    def is_last_step(self) -> bool:
        """Whether the run ends with this step."""
        return self.epoch == self.plan.epochs - 1 and self.ends_epoch

    @property
    def ends_epoch(self) -> bool:
        """Whether the epoch ends with this step."""
        return self._gradients.consumed + self.batch_size >= self._rows

    def take_step(self) -> None:
        """Take one step of the strategy, on the next batch."""
        gradients, recorder = self._gradients, self.recorder
        if self._faults:
            self._suffer()
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
            recorder.flush(now, self.step, self._epochs_done())

    def note(self) -> None:
        """Write a row of the history."""
        self.recorder.flush(clock(), self.step, self._epochs_done())

    def _epochs_done(self) -> float:
        return self._rows_done / self._rows

    def _suffer(self) -> None:
        for fault in self._faults:
            if isinstance(fault, Kill) and fault.active(self.step):
                os.kill(os.getpid(), signal.SIGKILL)
            if isinstance(fault, Crash) and fault.active(self.step):
                raise InjectedCrash(f"injected by {fault!r}")

    def is_told_to_stop(self) -> bool:
        """Apply the commands that are due at this boundary; return whether one of them was to stop."""
        if self.mailbox.pending or self.group.control != self._applied:
            self._obey()
        return self.stopping

    def _obey(self) -> None:
        self._listen()
        while self._applied < self.group.control and not self.stopping:
            command = Command.decode(self.group.await_announcement(self._applied + 1))
            if command.after >= self.step:
                return
            self._applied = command.number
            self._do(command)

    def _listen(self) -> None:
        """On rank 0: stamp and announce a command that arrived."""
        if self.group.rank == 0 and self.mailbox.pending:
            command = self.mailbox.take()
            if command is not None:
                self._announce(command, self._carrier())

    def _announce(self, command: Command, after: int) -> None:
        stamped = command.stamped(after)
        self.group.announce(stamped.number, stamped.encode())

    def _carrier(self) -> int:
        """Return the step whose messages carry a command of rank 0 to all ranks, who apply it after that step."""
        if not self.strategy.synchronous or self.group.size == 1:
            return -1  # at once: here ranks have no steps in common
        left = self._rows - self._gradients.consumed
        return self.strategy.carrier(self.step, self.step + -(-left // self.batch_size) - 1, self.group.size)

    def _do(self, command: Command) -> None:
        if command.verb == "pause":
            self._pause(command)
            return
        if command.verb == "stop":
            self.stopping = True
        elif command.verb == "update":
            self._update(command.settings)
        elif command.verb == "inject":
            self._inject(fault_from(command.settings))
        self._confirm(command)

    def _confirm(self, command: Command) -> None:
        self.report("applied", number=command.number, verb=command.verb, step=self.step)

    def _pause(self, command: Command) -> None:
        """Park at this boundary until a resume or a stop; a pause is no training time."""
        self.note()
        began = clock()
        if not self.strategy.synchronous and self.servers is None:
            self.neighbours.settle()  # nobody who is parked owes anybody an answer
        self._confirm(command)
        while True:
            if self.group.rank == 0 and self._applied == self.group.control:  # nothing was announced before the pause
                told = self.mailbox.wait()
                if told is None:
                    raise Aborted("the run ended while it was paused")
                self._announce(told, self.step - 1)
            command = Command.decode(self.group.await_announcement(self._applied + 1))
            self._applied = command.number
            if command.verb in ("resume", "stop"):
                self.recorder.skip(clock() - began)
                self._do(command)
                return
            if command.verb == "pause":
                self._confirm(command)
            else:
                self._do(command)

    def _update(self, settings: dict[str, Any]) -> None:
        if "learning_rate" in settings:
            self.optimizer.optimizer = self.optimizer.optimizer.with_rate(settings["learning_rate"])
        if "batch_size" in settings:
            self.batch_size = settings["batch_size"]
        if "strategy" in settings:
            self._follow(strategy_from(settings["strategy"]))

    def _follow(self, strategy: Strategy) -> None:
        """Go on with another strategy, from the same parameters and optimizer state on all ranks."""
        for name in set(self.state) - self._own_state:
            del self.state[name]
        if not self._committed:
            self.mean(self.w)
        if not self.strategy.replicated:
            # Each rank's own momentum becomes the mean of all: the same on every rank from here on.
            for name in sorted(self._own_state - {"schedule"}):
                self.mean(self.state[name])
        self.strategy = strategy
        strategy.begin(self.w, self.state)

    def _inject(self, fault: Fault) -> None:
        if fault.rank != self.group.rank:
            return
        if isinstance(fault, Crash | Kill) and fault.step < self.step:
            fault = replace(fault, step=self.step)
        self._faults.append(fault)
        if isinstance(fault, Slow):
            self._gradients.slow.append(fault)
