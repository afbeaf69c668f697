"""Worker connections: a server's end of the conversation, all workers as one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from math import inf
from typing import NamedTuple, final
from weakref import WeakMethod

import numpy as np

from scaleml.arrays import Array
from scaleml.comm.communicator import Communicator
from scaleml.runtime.parameter_server.compressed_format import CompressedFormat
from scaleml.runtime.parameter_server.message_format import (
    ANSWER,
    ASK,
    BYE,
    COPY,
    FINAL,
    KEEP,
    KEPT,
    LEAVE,
    NOTES,
    PUSH,
    SAVE,
    STATE,
    WHOLE,
    DenseFormat,
    Notes,
    SparseFormat,
)
from scaleml.runtime.parameter_server.server_commands import ServerCommandHandler
from scaleml.runtime.parameter_server.server_optimizer import DenseServerOptimizer, SparseServerOptimizer
from scaleml.runtime.parameter_server.shared_server import CLOCKS, COUNTS, DUE, ROWS, TAKEN, VERSION, WIDEST
from scaleml.runtime.parameter_server.worker_clocks import WorkerClocks
from scaleml.runtime.plan import Plan
from scaleml.runtime.train_state import TrainState
from scaleml.strategies.context import Push, SparseGradient
from scaleml.telemetry.recorder import Recorder


class _Waiting(NamedTuple):
    """A worker that waits for its answer, since when, and for which keys."""

    since: float
    staleness: int
    wants: Array | None


@final
class WorkerConnections:
    """What a strategy's ``serve`` sees as ``ctx.clients``.

    Parameters
    ----------
    start, stop : int
        This server's slice.
    form : DenseFormat, SparseFormat or CompressedFormat
        How messages are read.
    held : DenseServerOptimizer or SparseServerOptimizer
        Gives the parameters at the keys that a worker asks for.
    commands : ServerCommandHandler
        Told the step of each message that comes, before it is read: commands take effect then.

    Attributes
    ----------
    version : int
        Updates applied so far.
    taken : list of float
        Rows so far, by worker.
    keep : weak method or None
        Called with a worker's step: returns all that the server has after it; weak, for its object holds this one.
    clocks : WorkerClocks
        How far the workers have come.
    """

    def __init__(
        self,
        plan: Plan,
        group: Communicator,
        part: tuple[int, int],
        form: DenseFormat | SparseFormat | CompressedFormat,
        held: DenseServerOptimizer | SparseServerOptimizer,
        commands: ServerCommandHandler,
        recorder: Recorder,
    ) -> None:
        workers = plan.layout.workers
        self.version = 0
        self.taken = list(plan.taken) or [0.0] * workers
        self.rows = sum(self.taken)
        self.keep: WeakMethod[Callable[[int], TrainState]] | None = None
        self.clocks = WorkerClocks(workers)
        self._group = group
        self._recorder = recorder
        self._format = form
        self._values = held.values
        self._commands = commands
        # An outbox a worker, two where it may have an answer owing when it makes the next push: an answer may be read while
        # the next is being written. Other forms' answers are as long as they have to be, and made anew.
        shape = (workers, 1 + plan.serving.overlap, part[1] - part[0] + NOTES if isinstance(form, DenseFormat) else 0)
        boxes = group.buffer(shape[0] * shape[1] * shape[2], plan.model.dtype).reshape(shape)
        self._outboxes = [cycle(mine) for mine in boxes] if isinstance(form, DenseFormat) else None
        self._dtype = plan.model.dtype
        self._now = group.clock.now
        self._total = plan.total
        self._every = plan.evaluate_every
        self._by_rows = plan.by_rows
        self._any_left = False
        self._count_evaluations()
        self._waiting: dict[int, _Waiting] = {}
        self._of_clock: list[Push] = []
        self._copies: list[int] = []
        self._saves = 0
        self.saved: Callable[[], Callable[[], bytes] | None] = lambda: None
        """What returns the call that takes the server's state, for a checkpoint."""
        self._coming = [0.0] * workers
        self._excluded = 0.0
        """Seconds that the workers have been called away so far."""
        self._allowed = [inf] * workers
        """How far ahead each worker may be with the push that it was last told to go on with."""
        self._last = -1
        """The worker that sent the last message."""

    @property
    def coming(self) -> float:
        """Rows of pushes that do not count yet: their clock is not complete."""
        return sum(self._coming)

    @property
    def gone(self) -> bool:
        """Whether all workers have left."""
        return self.clocks.workers == 0

    def receive(self) -> Push | None:
        """Wait for the next message of any worker; return its gradient, None if it has none to apply now."""
        message = self._group.recv(tag=PUSH, view=True)
        source = self._last = message.source
        self._commands.apply_due(message.step, self.version + 1)
        head, gradient, wants = self._format.read(message)
        self.exclude(head.excluded)
        if head.kind == LEAVE:
            self._any_left = True
            self.clocks.leave(source)
            self._waiting.pop(source, None)
            self._group.send(np.array([self._due, self.clocks.widest], np.int64), source, tag=BYE)
            return None
        if head.kind == COPY:
            self._copies.append(source)
            return None
        if head.kind == SAVE:
            self._save()
            return None
        if head.kind == KEEP:
            self._send_state(source, message.step)
            return None
        staleness = self.version - message.sequence
        self._waiting[source] = _Waiting(self._now(), staleness, wants)
        if head.kind == ASK:
            return None
        self.clocks.tick(source, self._allowed[source])
        self._coming[source] += head.rows
        if gradient is None:
            return None
        push = Push(gradient, staleness, head.rows if self._by_rows else head.weight, source)
        self._of_clock.append(push)
        return push

    def _save(self) -> None:
        """Send the server's state to rank 0, once all workers have come to where it is to be taken: their pushes came before."""
        self._saves += 1
        take = self.saved()
        if self._saves == self.clocks.workers and take is not None:
            self._saves = 0
            self._group.send(take(), 0, tag=STATE)

    def exclude(self, seconds: float) -> None:
        """Have no wait count for which a worker was called away; ``seconds`` are those of that so far."""
        if seconds > self._excluded:
            self._recorder.exclude_waiting(seconds - self._excluded)
            self._excluded = seconds

    def resume(self, tally: Sequence[float]) -> None:
        """Go on from what workers who served themselves have written into a shared-memory server's tally."""
        self.version, self.rows, self._due = int(tally[VERSION]), tally[ROWS], int(tally[DUE])
        workers = len(self._told)
        self.taken = list(tally[CLOCKS + workers : CLOCKS + 2 * workers])
        self.clocks.resume(tally[CLOCKS : CLOCKS + workers], tally[WIDEST])

    def begin(self, tally: memoryview[float]) -> None:
        """Write into a tally what workers who serve themselves go on from."""
        workers = len(self._told)
        tally[VERSION], tally[ROWS], tally[DUE], tally[WIDEST] = self.version, self.rows, self._due, self.clocks.widest
        for worker, rows in enumerate(self.taken):
            tally[CLOCKS + workers + worker] = rows

    def counts(self) -> dict[str, Array]:
        """Return how far all are, for whoever goes on after a loss; what is of a clock that is not complete does not count."""
        return {COUNTS: np.array([self.version, self.clocks.widest], np.float64), TAKEN: np.array(self.taken)}

    def go_on(self, counts: Mapping[str, Array], taken: Sequence[float]) -> None:
        """Go on from `counts` after a loss; from ``taken``, where that is known better: by all who are left."""
        version, widest = counts[COUNTS].tolist()
        self.version = int(version)
        self.clocks.go_on(int(widest))
        self.taken = list(taken) or counts[TAKEN].tolist()
        self.rows = sum(self.taken)
        self._count_evaluations()

    def _count_evaluations(self) -> None:
        self._due = int(self.rows // self._every) if self._every else 0
        self._told = [self._due] * len(self.taken)

    def mean_of_clock(self) -> Push | None:
        """Return the mean of all workers' pushes of this clock, once all are here; None before, and if nothing was pushed."""
        if not self._of_clock or not self.clocks.level:
            return None
        pushes = sorted(self._of_clock, key=lambda push: push.source)  # the same sum whoever came first
        weight = sum(push.weight for push in pushes)
        return Push(_mean([(push.gradient, push.weight / weight) for push in pushes]), 0, weight, -1)

    def applied(self, push: Push) -> None:
        """Note that a push has been applied."""
        self.version += 1
        self._of_clock.clear()
        self._recorder.staleness += push.staleness
        self._recorder.updates += 1

    def answer(self, w: Array, ahead: float) -> None:
        """Answer every worker that waits and may go on: its clock is at most ``ahead`` above the slowest worker's.

        One that may not go on, but is wanted for an evaluation, is called to it, and will ask again.
        """
        if self._copies:
            self._send_copies(w)
        if ahead > 0 or self.clocks.level:
            self.rows += sum(self._coming)
            for worker, rows in enumerate(self._coming):
                self.taken[worker] += rows
                self._coming[worker] = 0.0
        over = self.rows >= self._total
        # Once a worker has left, the number of evaluations stands: the others must not wait for it in one more.
        if self._every and not over and not self._any_left:
            self._due = int(self.rows // self._every)
        for source in list(self._waiting):
            if over or self.clocks.may_go_on(source, ahead):
                self._allowed[source] = inf if over else ahead
                self._send(source, w, over, hold=False)
            elif self._due > self._told[source]:
                self._send(source, w, over, hold=True)

    def _send_state(self, dest: int, step: int) -> None:
        """Send a worker all that the server has after its step."""
        assert self.keep is not None
        keep = self.keep()
        assert keep is not None
        self._group.send(keep(step).to_bytes(), dest, tag=KEPT, sequence=self.version)

    def _send_copies(self, w: Array) -> None:
        """Send all parameters, for an evaluation: outside the clock and the ledger, as evaluations are."""
        begin, meter = self._now(), self._group.meter
        reading = meter.reading()
        for source in self._copies:
            self._group.send(self._values(w, None), source, tag=WHOLE, sequence=self.version)
        self._copies.clear()
        meter.set(reading)
        self._recorder.exclude(self._now() - begin)

    def _send(self, source: int, w: Array, over: bool, hold: bool) -> None:
        begin = self._now()
        waiting = self._waiting.pop(source)
        self._told[source] = self._due
        culprit = self.clocks.slowest if hold else self._last
        held = begin - waiting.since if culprit != source else 0.0
        values = self._values(w, waiting.wants)
        notes = Notes(waiting.staleness, self._due, over, hold, culprit, held)
        if isinstance(self._format, CompressedFormat):
            self._format.answer(values, notes, source, self.version)
            return
        answer = np.empty(len(values) + NOTES, self._dtype) if self._outboxes is None else next(self._outboxes[source])
        answer[:-NOTES] = values
        answer[-NOTES:] = notes
        self._group.meter.comm += self._now() - begin
        self._group.send(answer, source, tag=ANSWER, sequence=self.version)

    def hand_over(self, w: Array) -> None:
        """Send the final slice to rank 0."""
        self._group.send(w, 0, tag=FINAL)


def _mean(parts: list[tuple[Array | SparseGradient, float]]) -> Array | SparseGradient:
    """Return the weighted sum of gradients; dense ones are used up."""
    sparse = [(gradient, share) for gradient, share in parts if isinstance(gradient, SparseGradient)]
    if sparse:
        width, dtype = sparse[0][0].width, sparse[0][0].values.dtype
        keys = np.unique(np.concatenate([gradient.keys for gradient, _ in sparse]))
        rows = np.zeros((len(keys), width), dtype)
        for gradient, share in sparse:
            rows[np.searchsorted(keys, gradient.keys)] += gradient.values.reshape(-1, width) * share
        return SparseGradient(keys, rows.ravel(), width)
    (total, share), *others = [(gradient, share) for gradient, share in parts if isinstance(gradient, np.ndarray)]
    total *= share
    for other, share in others:
        other *= share
        total += other
    return total
