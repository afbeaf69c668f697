"""The server loop: a rank that holds a slice of the parameters serves workers until all have left."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from typing import final
from weakref import WeakMethod

import numpy as np

from scaleml.arrays import Array
from scaleml.comm.communicator import Communicator
from scaleml.faults import Fault
from scaleml.runtime.best_parameters import BestParameters
from scaleml.runtime.fault_injection import FaultInjector, facts_of
from scaleml.runtime.outcome import Outcome
from scaleml.runtime.parameter_server.compressed_format import CompressedFormat
from scaleml.runtime.parameter_server.message_format import STATE, DenseFormat, SparseFormat
from scaleml.runtime.parameter_server.server_commands import ServerCommandHandler
from scaleml.runtime.parameter_server.server_noise import ServerNoise
from scaleml.runtime.parameter_server.server_optimizer import DenseServerOptimizer, SparseServerOptimizer
from scaleml.runtime.parameter_server.shared_monitor import SharedMemoryMonitor
from scaleml.runtime.parameter_server.shared_server import (
    COUNTS,
    PREFIX,
    STEPS,
    SharedMemoryServer,
    shared_memory_servers,
)
from scaleml.runtime.parameter_server.worker_connections import WorkerConnections
from scaleml.runtime.plan import Plan
from scaleml.runtime.process_grid import ProcessGrid
from scaleml.runtime.recovery_points import RecoveryPoint
from scaleml.runtime.reporting import Report
from scaleml.runtime.schedule_place import begin_schedule
from scaleml.runtime.standing import Standing
from scaleml.runtime.train_state import TrainState
from scaleml.runtime.weight_decay import DECAY
from scaleml.telemetry.recorder import Recorder


@final
class ServerLoop:
    """One server; it is itself the context that the strategy's ``serve`` sees.

    Parameters
    ----------
    plan : Plan
        The run.
    world : Communicator
        All ranks.
    report : Report
        Tells the supervisor.
    recorder : Recorder
        This rank's rows of the history.
    """

    def __init__(self, plan: Plan, world: Communicator, report: Report, recorder: Recorder) -> None:
        self.grid = grid = ProcessGrid.build(world, plan.layout, plan.partition)
        self.world = world
        self.strategy = plan.serving
        self.report = report
        self.recorder = recorder
        self._now = world.clock.now
        # Making buffers is collective: as many calls here as in a rank that trains.
        world.buffer(0, plan.model.dtype)
        world.buffer(0, plan.model.dtype)
        shared = shared_memory_servers(plan, world)
        mine = None if shared is None else shared[grid.coordinate]
        self.state = self._first_state(plan, mine)
        self._format, self.optimizer = self._parts(plan)
        left = (
            plan.start if plan.start is not None and COUNTS in plan.start.arrays else None
        )  # by a server, after a loss
        since = 0 if left is None else left.step
        self.faults = FaultInjector(self.state, world, self.optimizer, mark=WeakMethod(self.mark_fault), since=since)
        self._commands = ServerCommandHandler(plan, world, self.state, self.faults)
        self._plan, self._shared = plan, mine
        part = self.state.start, self.state.stop
        self.clients = WorkerConnections(plan, world, part, self._format, self.optimizer, self._commands, recorder)
        self.clients.saved = WeakMethod(self._saved)
        self._keeps_end = plan.saving is not None
        self.clients.keep = WeakMethod(self.keep)  # no cycle
        if left is not None:
            self._go_on(left)
        if plan.clock is not None:
            self.state.clock = plan.clock
        self._noise = ServerNoise(plan, len(self.state.params), recorder)
        self._monitor: SharedMemoryMonitor | None = None
        if mine is not None and self.faults.next == inf and isinstance(self.optimizer, DenseServerOptimizer):
            self._monitor = SharedMemoryMonitor(mine, world, self.clients, self.optimizer, recorder)
        self.points: tuple[RecoveryPoint, ...] = ()
        self._epochs_a_row = 1.0 / plan.rows

    def _first_state(self, plan: Plan, shared: SharedMemoryServer | None) -> TrainState:
        """Return the state of this server's slice, in shared memory where there is some."""
        own, start = self.grid.own, plan.start
        if start is None:
            params = np.array(plan.model.init(plan.seed)[own], plan.model.dtype)
        else:
            params = np.array(start.params[own.start - start.start : own.stop - start.start], plan.model.dtype)
        slots = plan.optimizer.init(own.stop - own.start, plan.model.dtype)
        if shared is not None:
            shared.w[:] = params
            for name, array in slots.items():
                shared.state[name][:] = array
            params, slots = shared.w, shared.state
        state = TrainState(params, slots, own.start)
        if start is not None:
            state.resume(start)
            state.step = 0  # a server's steps are its own updates
            state.best, state.buffers = BestParameters(), None  # those who evaluate keep them
        state.optimizer, state.batch_size = plan.optimizer, plan.batch_size
        begin_schedule(plan, state, plan.strategy.updates_a_batch(plan.layout.workers))
        state.faults = tuple(fault for fault in plan.faults if fault.rank == self.world.rank)
        return state

    def _parts(
        self, plan: Plan
    ) -> tuple[DenseFormat | SparseFormat | CompressedFormat, DenseServerOptimizer | SparseServerOptimizer]:
        """Return how messages are read, and what applies gradients."""
        world, servers, recorder = self.world, self.grid.servers, self.recorder
        if plan.sparse:
            sparse = SparseServerOptimizer(plan, self.state, servers, recorder, world.clock)
            return SparseFormat(world, plan.model.dtype, plan.width), sparse
        dense = DenseServerOptimizer(plan, self.state, servers, recorder, world.clock)
        if self.strategy.compression is not None:
            return CompressedFormat(plan, world, self.state.params), dense
        return DenseFormat(world, None), dense

    def _go_on(self, start: TrainState) -> None:
        """Go on from what a server had when others were lost."""
        start = start.snapshot()
        beside = {name: start.arrays.pop(name) for name in list(start.arrays) if name.startswith(PREFIX)}
        self.state.restore(start)
        self.clients.go_on(beside, self._plan.taken)
        if isinstance(self._format, CompressedFormat):
            if self._plan.keeps_points and not self._plan.renumbered:
                self._format.go_on(beside)
            else:
                self._format.begin(self.state.params)
        self.world.control = self.state.commands

    def keep(self, step: int) -> TrainState:
        """Return all that whoever takes this server's place needs to go on after a worker's step; the exact one is kept here, too."""
        state = self.snapshot()
        state.arrays |= self.clients.counts()
        if self._plan.keeps_points:
            if isinstance(self._format, CompressedFormat):
                state.arrays |= {name: array.copy() for name, array in self._format.counts().items()}
            self.points = (*self.points[-1:], RecoveryPoint(step, state, b"", self.strategy))
        return state

    def left_standing(self) -> tuple[TrainState, Standing]:
        """Return how this server stands when others are lost, where nobody goes back to an earlier step."""
        state, plan = self.keep(self.steps), self._plan
        slices = {} if self._shared is None else {self.world.rank: self._shared.slice_left(state.start)}
        return state, Standing(plan.began, tuple(self.clients.taken), commands=state.commands, slices=slices)

    def run(self) -> Outcome:
        """Serve to the end."""
        clients, recorder, state, stamps = self.clients, self.recorder, self.state, self.world.stamps
        self.world.barrier()
        recorder.begin(self._now(), state.clock)
        self.report("entered")
        if self._monitor is not None:
            self._monitor.monitor(self._commands, self.faults, self._flush)
        while not clients.gone:
            if stamps.ended:
                self.world.check()
            if clients.version >= self.faults.next:
                self.faults.begin(clients.version)
            self.world.step = clients.version
            if clients.version < self._noise.due:
                self.strategy.serve(state.params, state.arrays, self)
            else:
                self._noise.serve(self.strategy, state.params, state.arrays, self, clients)
            if self._shared is not None:  # which outlives this process
                clients.begin(self._shared.tally)
                self._shared.tally[STEPS] = state.updates
            now = self._now()
            if now >= recorder.due:
                self._flush(now)
        self._flush(self._now())
        result = np.array(self.optimizer.result(state.params, state.arrays))
        clients.hand_over(result)
        if self._keeps_end:
            self.world.send(self._saved(), 0, tag=STATE)
        # Together: to a server that still waits for a worker to leave, one that is gone would be a lost peer.
        self.grid.servers.barrier()
        return Outcome("finished", clients.version, result, widest=clients.clocks.widest, state=self._end())

    def _end(self) -> TrainState:
        """Return where training could go on from; copies, for shared memory ends with the rank."""
        end = self.snapshot()
        end.params = np.array(self.optimizer.values(self.state.params, None))
        end.arrays.pop(DECAY, None)
        return end

    def _saved(self) -> bytes:
        """Return where training could go on from, for a checkpoint."""
        return replace(self._end(), faults=()).to_bytes()

    def snapshot(self) -> TrainState:
        """Return a copy of the state as it is now."""
        self.state.step, self.state.clock = self.clients.version, self.recorder.last
        return self.state.snapshot()

    def restore(self, state: TrainState) -> None:
        """Go back to a snapshot of this rank."""
        self.state.restore(state)

    def _flush(self, now: float) -> None:
        self.recorder.flush(now, self.clients.version, (self._plan.began + self.clients.rows) * self._epochs_a_row)

    def mark_fault(self, fault: Fault) -> None:
        """Have the history say which fault begins."""
        time = self.recorder.clock(self._now())
        self.report("mark", time=time, step=self.clients.version, **facts_of(fault))

    @property
    def steps(self) -> int:
        """Updates so far."""
        return self.clients.version

    def last_good(self) -> Array | None:
        """Return this server's slice, if it is finite."""
        values = np.array(self.optimizer.values(self.state.params, None))
        return values if np.isfinite(values).all() else None

    def last_good_buffers(self) -> None:
        """Return nothing: those who compute gradients have them."""

    def best(self) -> BestParameters:
        """Return nothing: those who evaluate keep what was best."""
        return BestParameters()
