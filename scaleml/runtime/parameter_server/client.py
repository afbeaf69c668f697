"""A worker's end of the conversation: all servers as one."""

from __future__ import annotations

from time import perf_counter as clock
from typing import Any, final
from weakref import WeakMethod

import numpy as np

from scaleml.optim import clip
from scaleml.runtime.coordinator import Pace
from scaleml.runtime.evaluation import of_rank_0
from scaleml.runtime.gradient import TAIL, Update
from scaleml.runtime.parameter_server.compressed_format import CompressedFormat
from scaleml.runtime.parameter_server.message_format import (
    ASK,
    BYE,
    COPY,
    FINAL,
    GRADIENT,
    LEAVE,
    NOTHING,
    WHOLE,
    DenseFormat,
    Head,
    Notes,
    SparseFormat,
    are_applied_together,
    slices,
)
from scaleml.runtime.parameter_server.shared_client import SharedMemoryClient, SharedMemoryFormat
from scaleml.runtime.parameter_server.shared_server import shared_memory_servers
from scaleml.runtime.plan import Plan
from scaleml.runtime.sparse_gradient import SparseGradients
from scaleml.telemetry.recorder import Recorder


@final
class ParameterServerClient(Pace):
    """What a strategy's ``step`` sees as ``ctx.servers``.

    All servers know the same; a worker listens to the last one: when an evaluation is due, whether the run has had its
    rows, and whether it has to wait for others. The others answer with their slices, as soon as they have got as far.

    Parameters
    ----------
    buffer : array
        Of `wire.room` items: the worker's gradient with its tail, and more; unused where gradients are sparse.
    sparse : SparseGradients or None
        Where the next batch's keys come from.

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
        self, plan: Plan, group: Any, update: Update, recorder: Recorder, buffer: Any, sparse: SparseGradients | None
    ) -> None:
        self._group = group
        self._update = update
        self._recorder = recorder
        self._sparse = sparse
        self._form: DenseFormat | SparseFormat | CompressedFormat | SharedMemoryFormat
        self._keyed: SparseFormat | None = None
        if plan.serving.compression is not None:
            self._form = CompressedFormat(plan, group)
        elif sparse is None:
            self._form = DenseFormat(group, buffer, plan.network.size)
            shared = shared_memory_servers(plan, group)
            if shared is not None:
                seats = [
                    SharedMemoryClient(plan, group, desk, rank) for rank, desk in enumerate(shared, plan.layout.workers)
                ]
                self._form = SharedMemoryFormat(seats, self._form, plan.layout.workers)
        else:
            self._form = self._keyed = SparseFormat(group, plan.dtype, sparse.width)
            sparse.fetch = WeakMethod(self.fetch)
        self._ahead = plan.serving.ahead
        self._clip_norm = None if are_applied_together(plan) else plan.optimizer.clip_norm
        workers = plan.layout.workers
        width = 1 if sparse is None else sparse.width
        cuts = slices(plan.network.size, plan.layout.servers, width)
        self._parts = [(workers + s, part) for s, part in enumerate(cuts)]
        self._versions = [0] * len(cuts)
        self._owing = 0
        """Pushes that have not been answered, as far as this worker has read."""

    def push(self, g: Any, w: Any) -> None:
        """Send each server its slice of the mean gradient at ``w``; ``g``, a sum with its tail, is used up."""
        begin = clock()
        values = g if self._sparse is None else g.values
        loss, weight, rows = values[-TAIL:].tolist()
        mean = self._update.mean(w, values)
        if mean is not None and self._clip_norm is not None:
            clip(mean, self._clip_norm)  # here, where the whole gradient is: a server has a slice
        self._recorder.apply += clock() - begin
        if self._keyed is not None and self._sparse is not None:
            self._keyed.wants = self._sparse.ahead()
        head = Head(loss, weight, rows, self._recorder.excluded, NOTHING if mean is None else GRADIENT)
        self._tell(head, None if mean is None else g)
        self._owing += 1

    def pull(self, w: Any, owing: int = 0) -> None:
        """Receive what was asked for into ``w`` (P,), until the answers to no more than so many pushes are owing.

        All of it but when `held`.
        """
        while self._owing > owing:
            self._owing -= 1
            self._recorder.staleness += self._receive(w).staleness

    def wait(self, w: Any) -> None:
        """Wait on, after an evaluation to which this worker was called while it was held; then as `pull`."""
        self._say(len(self._parts) - 1, self._word(ASK), None)
        self._receive(w)

    def fetch(self, keys: Any, w: Any) -> None:
        """Receive the newest parameters at other keys than those that were asked for with the last push."""
        assert self._keyed is not None
        self._keyed.wants = keys
        self._tell(self._word(ASK))
        self._receive(w)

    def agreed(self, w: Any, workers: Any) -> Any:
        """Return rank 0's parameters, on all workers; where it has only those of its batches, it asks for all first."""
        self.pull(w)
        if self._group.rank == 0 and self._sparse is not None:
            self._tell(self._word(COPY))
            for server, (a, b) in self._parts:
                self._group.recv(server, tag=WHOLE, out=w[a:b])
        return of_rank_0(w, workers)

    def park(self, w: Any) -> None:
        """Before a pause: receive what is owing."""
        self.pull(w)

    def leave(self, w: Any) -> bool:
        """Tell every server that this worker pushes no more; learn how many evaluations there are in all."""
        self.pull(w)
        self._tell(self._word(LEAVE))
        for server, _ in self._parts:
            self.evaluations_due, self.widest = self._group.recv(server, tag=BYE).payload.tolist()
        return True

    def collect(self, w: Any, workers: Any) -> None:
        """Receive the final parameters into every worker's ``w`` (P,), once all workers have left."""
        if self._group.rank == 0:
            for server, (a, b) in self._parts:
                self._group.recv(server, tag=FINAL, out=w[a:b])
        workers.broadcast(w)

    def common_step(self, step: int) -> int:
        """Return a step that all ranks take no earlier than they have heard what rank 0 said before its ``step``; -1 for none."""
        return -1 if self._ahead == np.inf else step + int(self._ahead)

    def _word(self, kind: int) -> Head:
        return Head(aside=self._recorder.excluded, kind=kind)

    def _tell(self, head: Head, g: Any = None) -> None:
        for s in range(len(self._parts)):
            self._say(s, head, g)

    def _say(self, s: int, head: Head, g: Any) -> None:
        server, part = self._parts[s]
        self._form.send(head, g, server, part, s == len(self._parts) - 1, self._versions[s])

    def _receive(self, w: Any) -> Notes:
        notes = self._receive_from(len(self._parts) - 1, w)
        self.evaluations_due, self.done, self.held = int(notes.due), bool(notes.done), bool(notes.hold)
        if not self.held:
            for s in range(len(self._parts) - 1):
                self._receive_from(s, w)
        return notes

    def _receive_from(self, s: int, w: Any) -> Notes:
        server, part = self._parts[s]
        begin, meter = clock(), self._group.meter
        before = meter.comm + meter.wait
        notes, self._versions[s] = self._form.receive(server, part, w)
        meter.comm += clock() - begin - (meter.comm + meter.wait - before)
        if notes.held and notes.culprit >= 0:
            # Not the server was slow, but the worker that it waited for itself.
            seconds = min(notes.held, meter.waited[server])
            meter.waited[server] -= seconds
            meter.waited[int(notes.culprit)] += seconds
        return notes
