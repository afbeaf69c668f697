"""A server whose workers serve themselves: it writes the history, and takes over when messages are to travel."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from time import perf_counter as clock
from typing import Any, Final, final

from scaleml.comm import ANY
from scaleml.runtime.fault_injection import FaultInjector
from scaleml.runtime.parameter_server.message_format import PUSH
from scaleml.runtime.parameter_server.server_commands import ServerCommandHandler
from scaleml.runtime.parameter_server.server_optimizer import DenseServerOptimizer
from scaleml.runtime.parameter_server.shared_server import (
    APPLIED,
    ASIDE,
    CLOCKS,
    CONTROL,
    LAST,
    OPEN,
    PUSHES,
    RATE,
    SOURCE,
    STALENESS,
    STEPS,
    VERSION,
    SharedMemoryServer,
)
from scaleml.runtime.parameter_server.worker_connections import WorkerConnections
from scaleml.telemetry.recorder import Recorder

Flush = Callable[[float], None]

LOOK: Final = 0.05
"""Seconds between two rows of the history: each costs the worker beside the server a change of threads."""


@final
class SharedMemoryMonitor:
    """One server while its desk is open.

    Parameters
    ----------
    clients : WorkerConnections
        Who will answer messages, and how far they have come.
    """

    def __init__(
        self,
        desk: SharedMemoryServer,
        group: Any,
        clients: WorkerConnections,
        held: DenseServerOptimizer,
        recorder: Recorder,
    ) -> None:
        self._desk = desk
        self._group = group
        self._clients = clients
        self._held = held
        self._recorder = recorder
        self._before = [0.0] * CLOCKS
        """The tally as it was written down last."""
        desk.tally[STEPS], desk.tally[CONTROL] = held.t, group.control
        desk.tally[RATE] = held.optimizer.learning_rate
        desk.tally[OPEN] = 1

    def keep(self, orders: ServerCommandHandler, suffering: FaultInjector, flush: Flush) -> None:
        """Write down what is done at the desk; close it when a message comes, or something is to be suffered here.

        ``flush(now)`` writes a row of the history as of a time.
        """
        group, idle, is_open = self._group, clock(), True
        while is_open:
            wanted = group.poll(PUSH, LOOK)
            tally, is_open = self._look(orders, suffering, wanted)
            if tally[PUSHES] > self._before[PUSHES]:
                flush(self._write_down(tally))
                idle = clock()
            elif clock() - idle > group.timeout:
                group.stalled(ANY, "a push", clock() - idle)
                idle = clock()
        self._wait(clock(), int(self._before[SOURCE]))

    def _look(self, orders: ServerCommandHandler, suffering: FaultInjector, wanted: bool) -> tuple[list[float], bool]:
        """Do what was told, and return the tally, and whether the desk stays open. Nobody pushes meanwhile."""
        desk, group = self._desk, self._group
        desk.take(group.rank)
        try:
            tally = desk.tally
            self._clients.resume(tally.tolist())
            group.step = self._clients.version
            orders.obey(0, self._clients.version)
            tally[CONTROL], tally[RATE] = group.control, self._held.optimizer.learning_rate
            if wanted or suffering.next < inf:
                tally[OPEN] = 0
            return tally.tolist(), bool(tally[OPEN])
        finally:
            desk.leave()

    def _write_down(self, tally: list[float]) -> float:
        """Take the work of others for this server's; return as of when."""
        recorder, meter, before = self._recorder, self._group.meter, self._before
        nbytes = int(tally[PUSHES] - before[PUSHES]) * self._desk.w.nbytes
        meter.bytes_received += nbytes
        meter.bytes_sent += nbytes
        recorder.updates += int(tally[VERSION] - before[VERSION])
        recorder.staleness += tally[STALENESS] - before[STALENESS]
        recorder.apply += tally[APPLIED] - before[APPLIED]
        self._held.t = int(tally[STEPS])
        self._before = tally
        last = min(tally[LAST], clock())
        self._wait(last, int(tally[SOURCE]))
        self._clients.forgive(tally[ASIDE])
        return last

    def _wait(self, until: float, source: int) -> None:
        """Count what nobody has accounted for as time in which the server waited for its next push."""
        meter, seconds = self._group.meter, self._recorder.unknown(until)
        if seconds > 0:
            meter.wait += seconds
            meter.waited[source] += seconds
