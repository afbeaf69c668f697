"""Both ends of a parameter server's conversation: pushes of gradients, answers of parameters."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter as clock
from typing import Any, Final

import numpy as np

from scaleml.engine.evaluation import restore, state_of
from scaleml.engine.gradients import TAIL, Update
from scaleml.engine.spec import Plan
from scaleml.optim import Optimizer, clip
from scaleml.telemetry.recorder import Recorder

PUSH: Final = 1
"""A slice of a gradient; an empty one says that the worker leaves."""
ANSWER: Final = 2
BYE: Final = 3
FINAL: Final = 4
NOTES: Final = 3
"""Items behind an answer: the push's staleness, evaluations due so far, and whether the run has had all its rows."""


def slices(size: int, servers: int) -> list[tuple[int, int]]:
    """Cut ``size`` parameters into ``servers`` equal slices."""
    return [(size * s // servers, size * (s + 1) // servers) for s in range(servers)]


class Servers:
    """A worker's end: all servers as one.

    The last server also gets the gradient's tail and keeps count for all: it says when an evaluation is due and
    when the run has had its rows.
    """

    def __init__(self, plan: Plan, group: Any, update: Update, recorder: Recorder) -> None:
        self._group = group
        self._update = update
        self._recorder = recorder
        self._clip_norm = plan.optimizer.clip_norm
        workers = plan.layout.workers
        self._parts = [(workers + s, a, b) for s, (a, b) in enumerate(slices(plan.network.size, plan.layout.servers))]
        self._versions = [0] * len(self._parts)
        self.evaluations_due = 0
        self.done = False

    def push(self, g: Any, w: Any) -> None:
        """Send each server its slice of the mean gradient at ``w``; ``g`` (P + 3,) is used up."""
        begin = clock()
        mean = self._update.mean(w, g)
        if mean is None:
            g[:-TAIL] = 0
        elif self._clip_norm is not None:
            clip(mean, self._clip_norm)  # here, where the whole gradient is: a server has a slice
        self._recorder.apply += clock() - begin
        last = len(self._parts) - 1
        for s, (server, a, b) in enumerate(self._parts):
            self._group.send(g[a : b + TAIL] if s == last else g[a:b], server, tag=PUSH, sequence=self._versions[s])

    def pull(self, w: Any) -> None:
        """Receive every server's slice into ``w`` (P,)."""
        for s, (server, a, b) in enumerate(self._parts):
            message = self._group.recv(server, tag=ANSWER, view=True)
            begin = clock()
            w[a:b] = message.payload[: b - a]
            self._versions[s] = message.sequence
            staleness, due, done = message.payload[b - a :].tolist()
            self._group.meter.comm += clock() - begin
        self._recorder.staleness += staleness
        self.evaluations_due, self.done = int(due), bool(done)

    def leave(self) -> None:
        """Tell every server that this worker pushes no more; learn how many evaluations there are in all."""
        for server, _, _ in self._parts:
            self._group.send(b"", server, tag=PUSH)
        for server, _, _ in self._parts:
            due = self._group.recv(server, tag=BYE).payload
        self.evaluations_due = int(due[0])

    def collect(self, w: Any) -> None:
        """Receive the final parameters into ``w`` (P,), once all workers have left."""
        for server, a, b in self._parts:
            self._group.recv(server, tag=FINAL, out=w[a:b])


@dataclass(frozen=True)
class Push:
    """One worker's gradient, as a server received it."""

    source: int
    gradient: Any
    version: int


class Clients:
    """A server's end: all workers as one."""

    def __init__(self, plan: Plan, group: Any, recorder: Recorder) -> None:
        workers = plan.layout.workers
        self._group = group
        self._recorder = recorder
        index = group.rank - workers
        self.start, self.stop = slices(plan.network.size, plan.layout.servers)[index]
        self._counts = index == plan.layout.servers - 1
        self._length = self.stop - self.start
        # One outbox a worker: an answer may be read while the next push of another worker is being applied.
        outbox = group.buffer(workers * (self._length + NOTES), plan.dtype)
        self._outboxes = outbox.reshape(workers, self._length + NOTES)
        self._total = plan.goal
        self._every = plan.evaluate_every
        self.version = 0
        self.rows = 0.0
        self._due = 0
        self._left = 0
        # Workers that were told of an evaluation and have not pushed since; there is one before the first step.
        self._evaluating = set(range(workers)) if self._every else set()
        self._told = [0] * workers
        self._workers = workers

    @property
    def gone(self) -> bool:
        """Whether all workers have left."""
        return self._left == self._workers

    def receive(self) -> Push | None:
        """Wait for the next push; None when instead a worker left."""
        message = self._next()
        if len(message.payload) == 0:
            self._left += 1
            self._group.send(np.array([self._due], np.int64), message.source, tag=BYE)
            return None
        gradient = message.payload
        gradient.flags.writeable = (
            True  # perhaps the worker's own memory: it has used this gradient up, and waits for the answer
        )
        if self._counts:
            self._count(gradient[-TAIL:].tolist())
            gradient = gradient[:-TAIL]
        return Push(message.source, gradient, message.sequence)

    def _next(self) -> Any:
        """Receive the next message; the clock stands still while all workers evaluate, as theirs do."""
        if len(self._evaluating) < self._workers:
            message = self._group.recv(tag=PUSH, view=True)
        else:
            begin, meter = clock(), self._group.meter
            saved = state_of(meter)
            message = self._group.recv(tag=PUSH, view=True)
            restore(meter, saved)
            self._recorder.exclude(clock() - begin)
        self._evaluating.discard(message.source)
        return message

    def _count(self, tail: list[float]) -> None:
        self.rows += tail[2]
        # Once a worker has left, the number of evaluations stands: the others must not wait for it in one more.
        if self._every and not self._left and self.rows < self._total:
            self._due = int(self.rows // self._every)

    def answer(self, push: Push, w: Any) -> None:
        """Send the slice ``w`` to the worker whose push was applied."""
        staleness = self.version - push.version
        self.version += 1
        self._recorder.staleness += staleness
        begin = clock()
        outbox = self._outboxes[push.source]
        if self._due > self._told[push.source]:
            self._told[push.source] = self._due
            self._evaluating.add(push.source)
        outbox[: self._length] = w
        outbox[self._length :] = (staleness, self._due, self.rows >= self._total)
        self._group.meter.comm += clock() - begin
        self._group.send(outbox, push.source, tag=ANSWER, sequence=self.version)

    def hand_over(self, w: Any) -> None:
        """Send the final slice to rank 0."""
        self._group.send(w, 0, tag=FINAL)


class SliceUpdate:
    """The optimizer on a server: gradients come as means already, and only a slice of the parameters is here."""

    def __init__(self, optimizer: Optimizer, recorder: Recorder) -> None:
        self.optimizer = optimizer
        self._recorder = recorder
        self.t = 0

    def apply(self, w: Any, g: Any, state: dict[str, Any]) -> None:
        """Update the slice ``w`` in place from the mean gradient ``g`` of the same length."""
        begin = clock()
        self.t += 1
        self.optimizer.apply(w, g, state, self.t)
        self._recorder.apply += clock() - begin
