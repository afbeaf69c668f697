"""A worker at its servers' shared_memory_servers: what it would have pushed, it does there itself."""

from __future__ import annotations

from collections import deque
from itertools import cycle
from time import perf_counter as clock
from time import sleep
from typing import Any, Final, final

import numpy as np

from scaleml.runtime.parameter_server.message_format import NOTHING, DenseFormat, Head, Notes
from scaleml.runtime.parameter_server.push import Push
from scaleml.runtime.parameter_server.server_optimizer import DenseServerOptimizer
from scaleml.runtime.parameter_server.shared_server import (
    APPLIED,
    ASIDE,
    CLOCKS,
    CONTROL,
    DUE,
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
from scaleml.telemetry.recorder import Recorder

_NAP: Final = 1e-4
"""Seconds between two looks whether the server has obeyed: that is rare."""


@final
class SharedMemoryClient:
    """One worker at one server's desk; to the strategy's ``serve`` it is that server's context.

    Parameters
    ----------
    server : int
        The rank whose desk it is.

    Attributes
    ----------
    open : bool
        Whether the desk is, as far as this worker knows.
    answers : deque
        Of notes, version and parameters: to pushes that have been taken in, but not pulled.
    """

    def __init__(self, plan: Plan, group: Any, desk: SharedMemoryServer, server: int) -> None:
        self.open = True
        self.answers: deque[tuple[Notes, int, Any]] = deque()
        self.optimizer = DenseServerOptimizer(plan, None, recorder := Recorder(server, group.meter))
        self._recorder = recorder  # the server's: of what is done here for it
        self._serve = plan.serving.serve
        self._desk, self._server = desk, server
        self._tally, self._clocks = desk.tally, desk.tally[CLOCKS : CLOCKS + plan.layout.workers]
        self._group, self._rank = group, group.rank
        self._total, self._every, self._by_rows = plan.goal, plan.evaluate_every, plan.by_rows
        self._trays = cycle([np.empty_like(desk.w) for _ in range(1 + plan.serving.overlap)])
        self._push: Push | None = None
        self._head = Head()
        self._staleness = 0

    def push(self, head: Head, gradient: Any, version: int) -> bool:
        """Do what the server does with a gradient, or with None; False if the desk is closed, and nothing was done."""
        begin = clock()
        group, desk, tally = self._group, self._desk, self._tally
        group.check()
        waited = desk.take(self._rank)
        try:
            if group.is_emulated:  # trouble on the way: so something has to be on its way
                tally[OPEN] = 0
            if tally[CONTROL] != group.control:
                waited += self._hear()
            if not tally[OPEN]:
                self.open = False
                return False
            self._take(head, gradient, int(tally[VERSION]) - version)
            self._serve(desk.w, desk.state, self)
            self._end()
        finally:
            desk.leave()
        meter = group.meter
        meter.bytes_sent += desk.w.nbytes if gradient is not None else 0
        meter.bytes_received += desk.w.nbytes
        meter.account(clock() - begin, waited, self._server)
        return True

    def _hear(self) -> float:
        """Hear that there are commands, or wait until the server has obeyed those that were heard of; return for how long."""
        begin, group, tally = clock(), self._group, self._tally
        asked = begin
        while tally[OPEN] and tally[CONTROL] < group.control:
            self._desk.leave()
            group.check()
            if clock() - asked > group.timeout:
                group.stalled(self._server, "it to obey", clock() - begin)
                asked = clock()
            sleep(_NAP)
            self._desk.take(self._rank)
        group.raise_control(int(tally[CONTROL]))
        return clock() - begin

    def _take(self, head: Head, gradient: Any, staleness: int) -> None:
        tally, clocks, rank = self._tally, self._clocks, self._rank
        self._head, self._staleness = head, staleness
        self._push = None
        if gradient is not None:
            self._push = Push(gradient, staleness, head.rows if self._by_rows else head.weight, rank)
        mine = clocks[rank]
        if mine - min(clocks) > tally[WIDEST]:
            tally[WIDEST] = mine - min(clocks)
        clocks[rank] = mine + 1
        held = self.optimizer
        held.t = int(tally[STEPS])
        if held.optimizer.learning_rate != tally[RATE]:
            held.optimizer = held.optimizer.with_rate(tally[RATE])

    def _end(self) -> None:
        tally, recorder = self._tally, self._recorder
        tally[STEPS] = self.optimizer.t
        tally[PUSHES] += 1
        tally[APPLIED] += recorder.apply
        recorder.apply = 0.0
        if self._head.aside > tally[ASIDE]:
            tally[ASIDE] = self._head.aside
        tally[SOURCE] = self._rank
        tally[LAST] = clock()

    # What ``serve`` sees.

    @property
    def clients(self) -> SharedMemoryClient:
        """The workers: here the one that is sitting here."""
        return self

    def receive(self) -> Push | None:
        """Return the gradient; None if there is none to apply."""
        return self._push

    def applied(self, push: Push) -> None:
        """Note that a push has been applied."""
        self._tally[VERSION] += 1
        self._tally[STALENESS] += push.staleness

    def answer(self, w: Any, ahead: float) -> None:
        """Answer the worker."""
        tally = self._tally
        tally[ROWS] = rows = tally[ROWS] + self._head.rows
        over = rows >= self._total
        if self._every and not over:
            tally[DUE] = rows // self._every
        tray = next(self._trays)
        tray[:] = w
        self.answers.append((Notes(self._staleness, tally[DUE], over, 0, -1, 0.0), int(tally[VERSION]), tray))


@final
class SharedMemoryFormat:
    """The form of what workers and servers tell each other where they share shared_memory_servers: nothing travels, until one is closed.

    Parameters
    ----------
    seats : list of SharedMemoryClient
        This worker's, by server.
    form : DenseFormat
        How messages are written and read, once a desk is closed.
    """

    def __init__(self, seats: list[SharedMemoryClient], form: DenseFormat, workers: int) -> None:
        self._seats = dict(enumerate(seats, workers))
        self._form = form

    def send(self, head: Head, g: Any, server: int, part: tuple[int, int], last: bool, version: int) -> None:
        """Take a push to a server's desk, else send it; ``g`` is the gradient, or None."""
        seat = self._seats[server]
        if seat.open and head.kind <= NOTHING and seat.push(head, None if g is None else g[part[0] : part[1]], version):
            return
        self._form.send(head, g, server, part, last, version)

    def receive(self, server: int, part: tuple[int, int], w: Any) -> tuple[Notes, int]:
        """Write the answer to the oldest push that has not been pulled into ``w`` (P,); return its notes and its version."""
        answers = self._seats[server].answers
        if not answers:
            return self._form.receive(server, part, w)
        notes, version, values = answers.popleft()
        w[part[0] : part[1]] = values
        return notes, version
