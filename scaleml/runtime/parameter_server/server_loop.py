"""The loop of a rank that holds parameters: serve workers until all have left."""

from __future__ import annotations

from math import inf
from time import perf_counter as clock
from typing import Any
from weakref import WeakMethod

import numpy as np

from scaleml.runtime.fault_injection import FaultInjector
from scaleml.runtime.parameter_server import DenseServerOptimizer, SparseServerOptimizer, WorkerConnections
from scaleml.runtime.parameter_server.compressed_format import CompressedFormat
from scaleml.runtime.parameter_server.message_format import DenseFormat, SparseFormat, slices
from scaleml.runtime.parameter_server.server_commands import ServerCommandHandler
from scaleml.runtime.parameter_server.shared_monitor import SharedMemoryMonitor
from scaleml.runtime.parameter_server.shared_server import shared_memory_servers
from scaleml.runtime.plan import Outcome, Plan, Start
from scaleml.runtime.training_loop import Report
from scaleml.telemetry.recorder import Recorder


class ServerLoop:
    """One server; it is itself the context that the strategy's ``serve`` sees."""

    def __init__(self, plan: Plan, group: Any, report: Report, recorder: Recorder) -> None:
        self.group = group
        self.strategy = plan.serving
        self.report = report
        self.recorder = recorder
        # Making buffers is collective: as many calls here as in a worker.
        group.buffer(0, plan.dtype)
        group.buffer(0, plan.dtype)
        width = plan.network.signature.n_outputs if plan.sparse else 1
        start, stop = slices(plan.network.size, plan.layout.servers, width)[group.rank - plan.layout.workers]
        servers = self._servers = group.split(1, group.rank)
        first = plan.network.init(plan.seed) if plan.start is None else plan.start.params
        self.w = np.array(first[start:stop], plan.dtype)
        form: DenseFormat | SparseFormat | CompressedFormat
        held: DenseServerOptimizer | SparseServerOptimizer
        if plan.sparse:
            form, held = (
                SparseFormat(group, plan.dtype, width),
                SparseServerOptimizer(plan, servers, recorder, start, stop),
            )
        else:
            coded = self.strategy.compression is not None
            form = CompressedFormat(plan, group, self.w) if coded else DenseFormat(group, None)
            held = DenseServerOptimizer(plan, servers, recorder)
        self.optimizer = held
        given = 0 if plan.handover is None else plan.handover.commands
        self.suffering = FaultInjector(plan.faults, group, held, mark=WeakMethod(self.mark))
        self._orders = ServerCommandHandler(group, held, self.suffering, given)
        self.clients = WorkerConnections(plan, group, (start, stop), form, held, self._orders, recorder)
        self.state = plan.optimizer.init(stop - start, plan.dtype)
        if plan.start is not None:
            held.t = plan.start.updates
            old = plan.start.state
            self.state |= {name: np.array(old[name][start:stop]) for name in self.state if name in old}
        self._keeper = self._at_desk(plan, held)
        self._clock = 0.0 if plan.handover is None else plan.handover.clock
        self._epochs_a_row = 1.0 / plan.rows

    def _at_desk(self, plan: Plan, held: Any) -> SharedMemoryMonitor | None:
        """Lay everything on a desk where there is one; None if the workers are not to serve themselves there."""
        shared = shared_memory_servers(plan, self.group)
        if shared is None:
            return None
        desk = shared[self.group.rank - plan.layout.workers]
        desk.w[:] = self.w
        for name, array in self.state.items():
            desk.state[name][:] = array
        self.w, self.state = desk.w, desk.state
        if self.suffering.next < inf:
            return None
        return SharedMemoryMonitor(desk, self.group, self.clients, held, self.recorder)

    def run(self) -> Outcome:
        """Serve to the end."""
        clients, recorder = self.clients, self.recorder
        self.group.barrier()
        recorder.begin(clock(), self._clock)
        self.report("entered")
        if self._keeper is not None:
            self._keeper.keep(self._orders, self.suffering, self._flush)
        while not clients.gone:
            if clients.version >= self.suffering.next:
                self.suffering.begin(clients.version)
            self.group.step = clients.version
            self.strategy.serve(self.w, self.state, self)
            now = clock()
            if now >= recorder.due:
                self._flush(now)
        self._flush(clock())
        clients.hand_over(self.optimizer.result(self.w, self.state))
        # Together: to a server that still waits for a worker to leave, one that is gone would be a lost peer.
        self._servers.barrier()
        # Copies: shared memory ends with the rank.
        state = {name: np.array(array) for name, array in self.state.items()}
        end = Start(np.array(self.optimizer.values(self.w, None)), state, self.optimizer.t)
        return Outcome("finished", clients.version, widest=clients.clocks.widest, end=end)

    def _flush(self, now: float) -> None:
        self.recorder.flush(now, self.clients.version, self.clients.rows * self._epochs_a_row)

    def mark(self, text: str, what: str = "setting", fault: dict[str, Any] | None = None) -> None:
        """Have the history say what changed: a setting, the strategy, or a fault, as `describe` has it."""
        now = self.recorder.clock(clock())
        self.report("mark", time=now, step=self.clients.version, text=text, what=what, fault=fault)

    @property
    def steps(self) -> int:
        """Updates so far."""
        return self.clients.version

    def last_good(self) -> Any:
        """A server alone has no whole parameters."""
        return None
