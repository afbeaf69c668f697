"""The shared-memory monitor: a server whose workers serve themselves writes the history, and takes over when messages are to travel."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Final, final

from scaleml.comm.communicator import ANY, Communicator
from scaleml.runtime.fault_injection import FaultInjector
from scaleml.runtime.parameter_server.message_format import PUSH
from scaleml.runtime.parameter_server.server_commands import ServerCommandHandler
from scaleml.runtime.parameter_server.server_optimizer import DenseServerOptimizer, optimizer_of
from scaleml.runtime.parameter_server.shared_server import (
    APPLIED,
    CONTROL,
    EXCLUDED,
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
    """One server while its workers do its work themselves.

    Parameters
    ----------
    connections : WorkerConnections
        Who will answer messages, and how far they have come.
    """

    def __init__(
        self,
        shared: SharedMemoryServer,
        group: Communicator,
        connections: WorkerConnections,
        held: DenseServerOptimizer,
        recorder: Recorder,
    ) -> None:
        self._shared = shared
        self._group = group
        self._now = group.clock.now
        self._connections = connections
        self._held = held
        self._recorder = recorder
        connections.begin(shared.tally)
        shared.tally[STEPS], shared.tally[CONTROL] = held.state.updates, group.control
        shared.tally[RATE] = optimizer_of(held.state).learning_rate
        self._before = list(shared.tally)
        """The tally as it was written down last."""
        shared.tally[OPEN] = 1

    def monitor(self, commands: ServerCommandHandler, faults: FaultInjector, flush: Flush) -> None:
        """Write down what is done in shared memory; close it when a message comes, or a fault is to begin here.

        ``flush(now)`` writes a row of the history as of a time.
        """
        group, idle, is_open = self._group, self._now(), True
        while is_open:
            wanted = group.poll(PUSH, LOOK)
            tally, is_open = self._look(commands, faults, wanted)
            if tally[PUSHES] > self._before[PUSHES]:
                flush(self._write_down(tally))
                idle = self._now()
            elif self._now() - idle > group.timeout:
                group.stalled(ANY, "a push", self._now() - idle)
                idle = self._now()
        self._wait(self._now(), int(self._before[SOURCE]))

    def _look(self, commands: ServerCommandHandler, faults: FaultInjector, wanted: bool) -> tuple[list[float], bool]:
        """Do what was told, and return the tally, and whether it stays open. Nobody pushes meanwhile."""
        shared, group = self._shared, self._group
        shared.acquire(group.rank)
        try:
            tally = shared.tally
            self._connections.resume(tally.tolist())
            group.step = self._connections.version
            commands.apply_due(0, self._connections.version)
            tally[CONTROL], tally[RATE] = group.control, optimizer_of(self._held.state).learning_rate
            if wanted or faults.next < inf:
                tally[OPEN] = 0
            return list(tally), bool(tally[OPEN])
        finally:
            shared.release()

    def _write_down(self, tally: list[float]) -> float:
        """Take the work of others for this server's; return as of when."""
        recorder, meter, before = self._recorder, self._group.meter, self._before
        nbytes = int(tally[PUSHES] - before[PUSHES]) * self._shared.w.nbytes
        meter.bytes_received += nbytes
        meter.bytes_sent += nbytes
        recorder.updates += int(tally[VERSION] - before[VERSION])
        recorder.staleness += tally[STALENESS] - before[STALENESS]
        recorder.apply += tally[APPLIED] - before[APPLIED]
        self._held.state.updates = int(tally[STEPS])
        self._before = tally
        last = min(tally[LAST], self._now())
        self._wait(last, int(tally[SOURCE]))
        self._connections.exclude(tally[EXCLUDED])
        return last

    def _wait(self, until: float, source: int) -> None:
        """Count what nobody has accounted for as time in which the server waited for its next push."""
        meter, seconds = self._group.meter, self._recorder.unknown(until)
        if seconds > 0:
            meter.wait += seconds
            meter.waited[source] += seconds
