"""The shared-memory client: what a worker would have pushed to a server of its host, it does there itself."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from itertools import cycle
from typing import Final, final

import numpy as np

from scaleml.arrays import Array
from scaleml.comm.communicator import Communicator
from scaleml.runtime.parameter_server.message_format import NOTHING, DenseFormat, Head, Notes
from scaleml.runtime.parameter_server.server_optimizer import DenseServerOptimizer
from scaleml.runtime.parameter_server.shared_server import (
    APPLIED,
    CLOCKS,
    CONTROL,
    DUE,
    EXCLUDED,
    LAST,
    OPEN,
    PUSHES,
    RATE,
    ROWS,
    SOURCE,
    STALENESS,
    STEPS,
    VERSION,
    WIDEST,
    SharedMemoryServer,
)
from scaleml.runtime.plan import Plan
from scaleml.runtime.train_state import TrainState
from scaleml.strategies.context import Push, SparseGradient
from scaleml.telemetry.recorder import Recorder

_NAP: Final = 1e-4
"""Seconds between two looks whether the server has applied: that is rare."""


@final
class SharedMemoryClient:
    """One worker at one shared-memory server; to the strategy's ``serve`` it is that server's context.

    Parameters
    ----------
    server : int
        The server's rank.

    Attributes
    ----------
    open : bool
        Whether workers still do the server's work themselves, as far as this one knows.
    answers : deque
        Of notes, version and parameters: to pushes that have been taken in, but not pulled.
    """

    def __init__(self, plan: Plan, group: Communicator, shared: SharedMemoryServer, server: int) -> None:
        self.open = True
        self.answers: deque[tuple[Notes, int, Array]] = deque()
        recorder = Recorder(server, group.meter)
        start = plan.partition.own(server).start
        state = TrainState(shared.w, shared.state, start, optimizer=plan.optimizer)
        self.optimizer = DenseServerOptimizer(plan, state, None, recorder, group.clock)
        self._recorder = recorder  # the server's: of what is done here for it
        self._serve = plan.serving.serve
        self._shared, self._server = shared, server
        self._tally, self._clocks = shared.tally, shared.tally[CLOCKS : CLOCKS + plan.layout.workers]
        self._mine = CLOCKS + plan.layout.workers + group.rank  # where this worker's rows stand
        self._group, self._rank = group, group.rank
        self._now, self._sleep = group.clock.now, group.clock.sleep
        self._total, self._every, self._by_rows = plan.total, plan.evaluate_every, plan.by_rows
        self._answers_memory = cycle([np.empty_like(shared.w) for _ in range(1 + plan.serving.overlap)])
        self._push: Push | None = None
        self._head = Head()
        self._staleness = 0

    def copy(self, w: Array) -> int | None:
        """Copy the slice into ``w`` and return its version; None where the server is closed, and answers by message."""
        shared, tally = self._shared, self._tally
        shared.acquire(self._rank)
        try:
            if not tally[OPEN]:
                return None
            w[:] = shared.w
            return int(tally[VERSION])
        finally:
            shared.release()

    def taken(self) -> list[float]:
        """Return the rows of each worker that the server has, as far as they are counted here."""
        workers = len(self._clocks)
        return [self._tally[CLOCKS + workers + worker] for worker in range(workers)]

    def slice_left(self) -> TrainState:
        """Return the server's slice as it lies there."""
        return self._shared.slice_left(self.optimizer.state.start)

    def push(self, head: Head, gradient: Array | None, version: int) -> bool:
        """Do what the server does with a gradient, or with None; False if it is closed, and nothing was done."""
        begin = self._now()
        group, shared, tally = self._group, self._shared, self._tally
        group.check()
        waited = shared.acquire(self._rank)
        try:
            if group.is_emulated:  # trouble on the way: so something has to be on its way
                tally[OPEN] = 0
            if tally[CONTROL] != group.control:
                waited += self._hear()
            if not tally[OPEN]:
                self.open = False
                return False
            self._take(head, gradient, int(tally[VERSION]) - version)
            self._serve(shared.w, shared.state, self)
            self._end()
        finally:
            shared.release()
        meter = group.meter
        meter.bytes_sent += shared.w.nbytes if gradient is not None else 0
        meter.bytes_received += shared.w.nbytes
        meter.account(self._now() - begin, waited, self._server)
        return True

    def _hear(self) -> float:
        """Hear that there are commands, or wait until the server has applied those that were heard of; return for how long."""
        begin, group, tally = self._now(), self._group, self._tally
        asked = begin
        while tally[OPEN] and tally[CONTROL] < group.control:
            self._shared.release()
            group.check()
            if self._now() - asked > group.timeout:
                group.stalled(self._server, "its commands to be applied", self._now() - begin)
                asked = self._now()
            self._sleep(_NAP)
            self._shared.acquire(self._rank)
        group.raise_control(int(tally[CONTROL]))
        return self._now() - begin

    def _take(self, head: Head, gradient: Array | None, staleness: int) -> None:
        tally, clocks, rank = self._tally, self._clocks, self._rank
        self._head, self._staleness = head, staleness
        self._push = None
        if gradient is not None:
            self._push = Push(gradient, staleness, head.rows if self._by_rows else head.weight, rank)
        mine = clocks[rank]
        if mine - min(clocks) > tally[WIDEST]:
            tally[WIDEST] = mine - min(clocks)
        clocks[rank] = mine + 1
        state = self.optimizer.state
        state.updates, optimizer = int(tally[STEPS]), state.optimizer
        assert optimizer is not None
        if optimizer.learning_rate != tally[RATE]:
            state.optimizer = optimizer.with_rate(tally[RATE])

    def _end(self) -> None:
        tally, recorder = self._tally, self._recorder
        tally[STEPS] = self.optimizer.state.updates
        tally[PUSHES] += 1
        tally[APPLIED] += recorder.apply
        recorder.apply = 0.0
        if self._head.excluded > tally[EXCLUDED]:
            tally[EXCLUDED] = self._head.excluded
        tally[SOURCE] = self._rank
        tally[LAST] = self._now()

    def state(self) -> TrainState:
        """Return a copy of what the server goes on from, while nobody pushes."""
        self._shared.acquire(self._rank)
        try:
            return replace(self.optimizer.state.snapshot(), updates=int(self._tally[STEPS]))
        finally:
            self._shared.release()

    # What ``serve`` sees.

    @property
    def clients(self) -> SharedMemoryClient:
        """The workers: here the one that does the server's work."""
        return self

    def mean_of_clock(self) -> Push | None:
        """Never asked for: where all pushes are applied together, they go by message."""
        raise AssertionError("pushes that are applied together go by message")

    def receive(self) -> Push | None:
        """Return the gradient; None if there is none to apply."""
        return self._push

    def applied(self, push: Push) -> None:
        """Note that a push has been applied."""
        self._tally[VERSION] += 1
        self._tally[STALENESS] += push.staleness

    def answer(self, w: Array, ahead: float) -> None:
        """Answer the worker."""
        tally = self._tally
        tally[ROWS] = rows = tally[ROWS] + self._head.rows
        tally[self._mine] += self._head.rows
        over = rows >= self._total
        if self._every and not over:
            tally[DUE] = rows // self._every
        values = next(self._answers_memory)
        values[:] = w
        self.answers.append((Notes(self._staleness, tally[DUE], over, 0, -1, 0.0), int(tally[VERSION]), values))


@final
class SharedMemoryFormat:
    """The form of what workers and servers tell each other where they share memory: nothing travels, until one is closed.

    Parameters
    ----------
    clients : list of SharedMemoryClient
        This worker's, by server.
    form : DenseFormat
        How messages are written and read, once a server is closed.
    """

    def __init__(self, clients: list[SharedMemoryClient], form: DenseFormat, workers: int) -> None:
        self.clients = dict(enumerate(clients, workers))
        self._format = form

    def send(
        self, head: Head, g: Array | SparseGradient | None, server: int, part: tuple[int, int], last: bool, version: int
    ) -> None:
        """Do the server's work for a push in shared memory, else send it; ``g`` is the gradient, or None."""
        client = self.clients[server]
        assert not isinstance(g, SparseGradient), "sparse pushes go by message"
        own = None if g is None else g[part[0] : part[1]]
        if client.open and head.kind <= NOTHING and client.push(head, own, version):
            return
        self._format.send(head, g, server, part, last, version)

    def states(self) -> list[Callable[[], bytes]]:
        """Return what makes bytes of the states of all servers as they are now."""
        return [client.state().to_bytes for client in self.clients.values()]

    def receive(self, server: int, part: tuple[int, int], w: Array) -> tuple[Notes, int]:
        """Write the answer to the oldest push that has not been pulled into ``w`` (P,); return its notes and its version."""
        answers = self.clients[server].answers
        if not answers:
            return self._format.receive(server, part, w)
        notes, version, values = answers.popleft()
        w[part[0] : part[1]] = values
        return notes, version
