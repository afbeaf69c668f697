"""The parameter-server client: a worker's end of the conversation, all servers as one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import final
from weakref import WeakMethod

import numpy as np

from scaleml.arrays import Array
from scaleml.comm.communicator import Communicator
from scaleml.optim import clip
from scaleml.runtime.coordinator import AsynchronousCoordinator, of_rank_0
from scaleml.runtime.optimizer_step import OptimizerStep
from scaleml.runtime.parameter_server.compressed_format import CompressedFormat
from scaleml.runtime.parameter_server.message_format import (
    ASK,
    BYE,
    COPY,
    FINAL,
    GRADIENT,
    KEEP,
    KEPT,
    LEAVE,
    NOTHING,
    SAVE,
    STATE,
    WHOLE,
    DenseFormat,
    Head,
    Notes,
    SparseFormat,
    are_applied_together,
)
from scaleml.runtime.parameter_server.shared_client import SharedMemoryClient, SharedMemoryFormat
from scaleml.runtime.parameter_server.shared_server import shared_memory_servers
from scaleml.runtime.plan import Plan
from scaleml.runtime.process_grid import ProcessGrid
from scaleml.runtime.train_state import TrainState
from scaleml.runtime.update_form import UpdateForm
from scaleml.strategies.context import TAIL, SparseGradient
from scaleml.telemetry.recorder import Recorder


@final
class ParameterServerClient(AsynchronousCoordinator):
    """What a strategy's ``step`` sees as ``ctx.servers``.

    All servers know the same; a worker listens to the last one: when an evaluation is due, whether the run has had its
    rows, and whether it has to wait for others. The others answer with their slices, as soon as they have got as far.

    Parameters
    ----------
    buffer : array
        Of `wire.room` items: the worker's gradient with its tail, and more; unused where gradients are sparse.
    form : UpdateForm
        Where the next batch's keys come from, if gradients are sparse.
    state : TrainState
        Where a codec keeps what it has not sent yet.

    Attributes
    ----------
    evaluations_due : int
        So far in the run.
    done : bool
        Whether the run has had its rows.
    held : bool
        Whether this worker has to `wait` before its next step.
    widest : int
        At the end: the most clocks that any push was ahead of the slowest worker.
    """

    def __init__(
        self,
        plan: Plan,
        grid: ProcessGrid,
        optimizer: OptimizerStep,
        recorder: Recorder,
        buffer: Array,
        form: UpdateForm,
        state: TrainState,
    ) -> None:
        group = self._group = grid.world
        self._now = group.clock.now
        self._optimizer = optimizer
        self._recorder = recorder
        self._sparse = sparse = form.sparse
        self._format: DenseFormat | SparseFormat | CompressedFormat | SharedMemoryFormat
        self._keyed: SparseFormat | None = None
        if plan.serving.compression is not None:
            self._format = CompressedFormat(plan, group, residuals=state.arrays)
        elif sparse is None:
            self._format = DenseFormat(group, buffer, plan.model.size)
            found = shared_memory_servers(plan, group)
            if found is not None:
                clients = [
                    SharedMemoryClient(plan, group, shared, rank)
                    for rank, shared in enumerate(found, plan.layout.workers)
                ]
                self._format = SharedMemoryFormat(clients, self._format, plan.layout.workers)
        else:
            self._format = self._keyed = SparseFormat(group, plan.model.dtype, sparse.width)
            sparse.fetch = WeakMethod(self.fetch)
        self._ahead = plan.serving.ahead
        self._clip_norm = None if are_applied_together(plan) else plan.optimizer.clip_norm
        self._parts = [(owner, plan.partition.slices[owner]) for owner in plan.partition.owners]
        self._versions = [0] * len(self._parts)
        self._kept_here = [
            s
            for s, (server, _) in enumerate(self._parts)
            if plan.layout.keeper(server) == group.rank and plan.replaces_lost
        ]
        self._keeps_known = plan.keeps_points and plan.serving.compression is not None and not plan.renumbered
        self.evaluations_due = plan.looked
        self._keeps_end = plan.saving is not None
        self._end_states: list[Callable[[], bytes]] = []
        self._owing = 0
        """Pushes that have not been answered, as far as this worker has read."""

    def push(self, g: Array | SparseGradient, w: Array) -> None:
        """Send each server its slice of the mean gradient at ``w``; ``g``, a sum with its tail, is used up."""
        begin = self._now()
        values = g if isinstance(g, np.ndarray) else g.values
        loss, weight, rows = values[-TAIL:].tolist()
        mean = self._optimizer.mean(w, values)
        if mean is not None and self._clip_norm is not None:
            clip(mean, self._clip_norm)  # here, where the whole gradient is: a server has a slice
        self._recorder.apply += self._now() - begin
        if self._keyed is not None and self._sparse is not None:
            self._keyed.wants = self._sparse.ahead()
        head = Head(loss, weight, rows, self._recorder.excluded, NOTHING if mean is None else GRADIENT)
        self._tell(head, None if mean is None else g)
        self._owing += 1

    def pull(self, w: Array, owing: int = 0) -> None:
        """Receive what was asked for into ``w`` (P,), until the answers to no more than so many pushes are owing.

        All of it but when `held`.
        """
        while self._owing > owing:
            self._owing -= 1
            self._recorder.staleness += self._receive(w).staleness

    def wait(self, w: Array) -> None:
        """Wait on, after an evaluation to which this worker was called while it was held; then as `pull`."""
        self._say(len(self._parts) - 1, self._word(ASK), None)
        self._receive(w)

    def fetch(self, keys: Array, w: Array) -> None:
        """Receive the newest parameters at other keys than those that were asked for with the last push."""
        assert self._keyed is not None
        self._keyed.wants = keys
        self._tell(self._word(ASK))
        self._receive(w)

    def begin_again(self, w: Array) -> None:
        """After a loss: receive what the servers go on with into ``w`` (P,), and learn how far they are."""
        if self._keeps_known:  # a codec's server knows what this worker has
            w = w.copy()
        for s, (server, (a, b)) in enumerate(self._parts):
            shared = self._shared.get(server)
            version = None if shared is None else shared.copy(w[a:b])
            if version is None:
                self._say(s, self._word(COPY), None)
                version = self._group.recv(server, tag=WHOLE, out=w[a:b]).sequence
            self._versions[s] = version

    @property
    def keeps_copies(self) -> bool:
        """Whether this worker is one that keeps copies of servers: not where it sees their memory."""
        return bool(self._kept_here) and not self._shared

    def keep(self, step: int) -> dict[int, bytes]:
        """Return all that the servers have after this worker's step, by rank, of which a copy is to be kept here."""
        group, before = self._group, self._group.step
        group.step = step  # commands until then have taken effect
        for s in self._kept_here:
            self._say(s, self._word(KEEP), None)
        group.step = before
        copies = {}
        for s in self._kept_here:
            server = self._parts[s][0]
            state = group.recv(server, tag=KEPT).payload
            assert isinstance(state, bytes)
            copies[server] = state
        return copies

    def slices_left(self) -> dict[int, TrainState]:
        """Return what lies in shared memory of the servers, by rank."""
        return {server: client.slice_left() for server, client in self._shared.items()}

    def taken(self) -> list[float]:
        """Return the rows of each worker that are in the parameters, where these lie in shared memory."""
        counted = [client.taken() for client in self._shared.values()]
        return [max(rows) for rows in zip(*counted, strict=True)]

    @property
    def _shared(self) -> dict[int, SharedMemoryClient]:
        return self._format.clients if isinstance(self._format, SharedMemoryFormat) else {}

    def agreed(self, w: Array, workers: Communicator) -> Array:
        """Return rank 0's parameters, on all workers; where it has only those of its batches, it asks for all first."""
        self.pull(w)
        if self._group.rank == 0 and self._sparse is not None:
            self._tell(self._word(COPY))
            for server, (a, b) in self._parts:
                self._group.recv(server, tag=WHOLE, out=w[a:b])
        return of_rank_0(w, workers)

    def park(self, w: Array) -> None:
        """Before a pause: receive what is owing."""
        self.pull(w)

    def leave(self, w: Array) -> bool:
        """Tell every server that this worker pushes no more; learn how many evaluations there are in all."""
        self.pull(w)
        self._tell(self._word(LEAVE))
        for server, _ in self._parts:
            self.evaluations_due, self.widest = self._group.recv(server, tag=BYE).array.tolist()
        return True

    def collect(self, w: Array, workers: Communicator) -> None:
        """Receive the final parameters into every worker's ``w`` (P,), once all workers have left."""
        if self._group.rank == 0:
            for server, (a, b) in self._parts:
                self._group.recv(server, tag=FINAL, out=w[a:b])
            if self._keeps_end:
                self._end_states = self._received_states()
        workers.broadcast(w)

    def server_states(self, *, at_end: bool = False) -> list[Callable[[], bytes]]:
        """Have all servers give their states to rank 0; see `AsynchronousCoordinator`."""
        if at_end:
            return self._end_states
        if isinstance(self._format, SharedMemoryFormat):
            return [] if self._group.rank else self._format.states()
        self._tell(self._word(SAVE))
        return [] if self._group.rank else self._received_states()

    def _received_states(self) -> list[Callable[[], bytes]]:
        received = [self._group.recv(server, tag=STATE).payload for server, _ in self._parts]
        return [partial(bytes, each) for each in received]

    def common_step(self, step: int) -> int:
        """Return a step that all ranks take no earlier than they have heard what rank 0 said before its ``step``; -1 for none."""
        return -1 if self._ahead == np.inf else step + int(self._ahead)

    def _word(self, kind: int) -> Head:
        return Head(excluded=self._recorder.excluded, kind=kind)

    def _tell(self, head: Head, g: Array | SparseGradient | None = None) -> None:
        for s in range(len(self._parts)):
            self._say(s, head, g)

    def _say(self, s: int, head: Head, g: Array | SparseGradient | None) -> None:
        server, part = self._parts[s]
        self._format.send(head, g, server, part, s == len(self._parts) - 1, self._versions[s])

    def _receive(self, w: Array) -> Notes:
        notes = self._receive_from(len(self._parts) - 1, w)
        self.evaluations_due, self.done, self.held = int(notes.due), bool(notes.done), bool(notes.hold)
        if not self.held:
            for s in range(len(self._parts) - 1):
                self._receive_from(s, w)
        return notes

    def _receive_from(self, s: int, w: Array) -> Notes:
        server, part = self._parts[s]
        begin, meter = self._now(), self._group.meter
        before = meter.comm + meter.wait
        notes, self._versions[s] = self._format.receive(server, part, w)
        meter.comm += self._now() - begin - (meter.comm + meter.wait - before)
        if notes.held and notes.culprit >= 0:
            # Not the server was slow, but the worker that it waited for itself.
            seconds = min(notes.held, meter.waited[server])
            meter.waited[server] -= seconds
            meter.waited[int(notes.culprit)] += seconds
        return notes
