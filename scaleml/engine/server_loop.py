"""The loop of a rank that holds parameters: serve pushes until all workers have left."""

from __future__ import annotations

from time import perf_counter as clock
from typing import Any

import numpy as np

from scaleml.engine.commands import Command
from scaleml.engine.serving import Clients, SliceUpdate
from scaleml.engine.spec import Outcome, Plan, Start
from scaleml.engine.worker_loop import Report
from scaleml.strategies import ParameterServer
from scaleml.telemetry.recorder import Recorder


class ServerLoop:
    """One server; it is itself the context that the strategy's ``serve`` sees."""

    def __init__(self, plan: Plan, group: Any, report: Report, recorder: Recorder) -> None:
        assert isinstance(plan.strategy, ParameterServer)
        self.group = group
        self.strategy = plan.strategy
        self.report = report
        self.recorder = recorder
        # Making buffers is collective: as many calls here as in a worker.
        group.buffer(0, plan.dtype)
        group.buffer(0, plan.dtype)
        self.clients = Clients(plan, group, recorder)
        self._servers = group.split(1, group.rank)
        part = slice(self.clients.start, self.clients.stop)
        start = plan.network.init(plan.seed) if plan.start is None else plan.start.params
        self.w = np.array(start[part], plan.dtype)
        self.optimizer = SliceUpdate(plan.optimizer, recorder)
        self.state = plan.optimizer.init(part.stop - part.start, plan.dtype)
        if plan.start is not None:
            self.optimizer.t = plan.start.updates
            self.state |= {
                name: np.array(array[part]) for name, array in plan.start.state.items() if name in self.state
            }
        self._clock = 0.0 if plan.handover is None else plan.handover.clock
        self._applied = group.control = 0 if plan.handover is None else plan.handover.commands
        self._epochs_a_row = 1.0 / plan.rows

    def run(self) -> Outcome:
        """Serve to the end."""
        clients, recorder = self.clients, self.recorder
        self.group.barrier()
        recorder.begin(clock(), self._clock)
        self.report("entered")
        while not clients.gone:
            self.group.step = clients.version
            self.strategy.serve(self.w, self.state, self)  # type: ignore[arg-type]
            if self.group.control != self._applied:
                self._obey()
            if clients.version != self.group.step:  # a worker that leaves is no update
                recorder.updates += 1
            now = clock()
            if now >= recorder.due:
                recorder.flush(now, clients.version, clients.rows * self._epochs_a_row)
        recorder.flush(clock(), clients.version, clients.rows * self._epochs_a_row)
        clients.hand_over(self.optimizer.optimizer.result(self.w, self.state, self.optimizer.t))
        # Together: to a server that still waits for a worker to leave, one that is gone would be a lost peer.
        self._servers.barrier()
        return Outcome("finished", clients.version, end=Start(self.w, self.state, self.optimizer.t))

    def _obey(self) -> None:
        """Take a new learning rate; the other commands concern the workers."""
        while self._applied < self.group.control:
            command = Command.decode(self.group.await_announcement(self._applied + 1))
            self._applied = command.number
            if "learning_rate" in command.settings:
                rate = command.settings["learning_rate"]
                self.optimizer.optimizer = self.optimizer.optimizer.with_rate(rate)

    @property
    def steps(self) -> int:
        """Updates so far."""
        return self.clients.version

    def last_good(self) -> Any:
        """A server alone has no whole parameters."""
        return None
