"""A server whose workers serve themselves: it writes the history, and takes over when messages are to travel."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from time import perf_counter as clock
from typing import Any, Final, final

from scaleml.comm import ANY
from scaleml.engine.ranks.servers.clients import Clients
from scaleml.engine.ranks.servers.desk import (
    APPLIED,
    ASIDE,
    LAST,
    OPEN,
    PUSHES,
    SOURCE,
    STALENESS,
    STEPS,
    VERSION,
    Desk,
)
from scaleml.engine.ranks.servers.orders import Orders
from scaleml.engine.ranks.servers.seat import agree
from scaleml.engine.ranks.servers.slices import DenseSlice
from scaleml.engine.ranks.servers.wire import PUSH
from scaleml.engine.ranks.suffering import Suffering
from scaleml.telemetry.recorder import Recorder

Flush = Callable[[float], None]

LOOK: Final = 0.05
"""Seconds between two rows of the history: each costs the worker beside the server a change of threads."""


@final
class Keeper:
    """One server while its desk is open.

    Parameters
    ----------
    clients : Clients
        Who will answer messages, and how far they have come.
    """

    def __init__(self, desk: Desk, group: Any, clients: Clients, held: DenseSlice, recorder: Recorder) -> None:
        self._desk = desk
        self._group = group
        self._clients = clients
        self._held = held
        self._recorder = recorder
        self._staleness = self._pushes = self._applied = 0.0
        """As far as they have been written down."""
        desk.tally[STEPS] = held.t
        desk.tally[OPEN] = 1

    def keep(self, orders: Orders, suffering: Suffering, flush: Flush) -> None:
        """Write down what is done at the desk; close it when a message comes, or something is to be suffered here.

        ``flush(now)`` writes a row of the history as of a time.
        """
        group, idle = self._group, clock()
        while suffering.next == inf and not group.poll(PUSH, LOOK):
            orders.obey(0, self._clients.version + 1)
            if self._write_down(flush):
                idle = clock()
            elif clock() - idle > group.mesh.timeout:
                group.mesh.stalled(ANY, "a push", clock() - idle)
                idle = clock()
        self._write_down(flush, closing=True)

    def _write_down(self, flush: Flush, closing: bool = False) -> bool:
        """Write what was done since the last time into the history; return whether there was anything."""
        desk, group, recorder, clients = self._desk, self._group, self._recorder, self._clients
        desk.lock.acquire(group.rank)
        try:
            agree(desk.tally, group.mesh)
            if closing:
                desk.tally[OPEN] = 0
            tally = desk.tally.tolist()
        finally:
            desk.lock.release()
        moved = tally[PUSHES] > self._pushes
        if moved:
            group.step = int(tally[VERSION])
            recorder.updates += group.step - clients.version
            recorder.staleness += tally[STALENESS] - self._staleness
            recorder.apply += tally[APPLIED] - self._applied
            nbytes = int(tally[PUSHES] - self._pushes) * desk.w.nbytes
            group.meter.bytes_received += nbytes
            group.meter.bytes_sent += nbytes
            self._staleness, self._pushes, self._applied = tally[STALENESS], tally[PUSHES], tally[APPLIED]
            self._held.t = int(tally[STEPS])
            clients.resume(tally)
            self._wait(tally[LAST], int(tally[SOURCE]))
            clients.forgive(tally[ASIDE])
            flush(tally[LAST])
        if closing:
            self._wait(clock(), int(tally[SOURCE]))
        return moved

    def _wait(self, until: float, source: int) -> None:
        """Count what nobody has accounted for as time in which the server waited for its next push."""
        meter, seconds = self._group.meter, self._recorder.unknown(until)
        if seconds > 0:
            meter.wait += seconds
            meter.waited[source] += seconds
