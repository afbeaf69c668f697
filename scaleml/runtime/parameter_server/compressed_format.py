"""The compressed format: what travels where a codec writes it; gradients one way, changes of the parameters the other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import numpy as np

from scaleml.arrays import Array
from scaleml.comm import Mismatch
from scaleml.comm.communicator import Communicator, Message
from scaleml.compression import Codec, CodecContext
from scaleml.models.flat_model import matrices_of
from scaleml.runtime.parameter_server.message_format import (
    ANSWER,
    GRADIENT,
    HEAD,
    NOTES,
    PUSH,
    Head,
    Notes,
    Received,
    slices,
)
from scaleml.runtime.plan import Plan
from scaleml.strategies.context import SparseGradient

_KNOWN, _KEPT = "clients.known", "clients.kept "
_HEAD, _NOTES = 8 * HEAD, 8 * NOTES  # bytes: they travel as float64, exactly


@final
class CompressedFormat:
    """Whole slices through a codec, with error feedback at both ends.

    ::

        worker:  p <- g + residual;  send encode(p);  residual <- p - what that says
        server:  d <- w - what the worker has;  send encode(d);  it has what that says, too
        worker:  w <- w + what that says

    A server knows what each worker has, to the bit, so what an answer loses is part of the next difference.

    Parameters
    ----------
    w : array, optional
        On a server, its slice at the start, which all workers have.
    residuals : dict of arrays
        On a worker, where what it has not sent yet is kept.

    References
    ----------
    Tang et al., DoubleSqueeze, ICML 2019, arXiv:1905.05957.
    """

    def __init__(
        self, plan: Plan, group: Communicator, w: Array | None = None, residuals: dict[str, Array] | None = None
    ) -> None:
        codec = plan.serving.compression
        assert isinstance(codec, Codec)
        workers = plan.layout.workers
        self._codec = codec
        self._group = group
        self._dtype = plan.model.dtype
        self._now = group.clock.now
        whole = CodecContext(plan.seed, matrices=matrices_of(plan.model))
        cuts = slices(plan)
        self._stamps = [whole.within(a, b, part=s) for s, (a, b) in enumerate(cuts)]
        self._first_server = workers
        self._residuals: dict[str, Array] = {} if residuals is None else residuals
        self._known = None if w is None else np.tile(w, (workers, 1))
        self._kept: list[dict[str, Array]] = [{} for _ in range(workers)]
        """A server: what the codec keeps from answer to answer, for each worker."""

    # A worker's side.

    def send(
        self, head: Head, g: Array | SparseGradient | None, server: int, part: tuple[int, int], last: bool, version: int
    ) -> None:
        """Send a message to a server; ``g`` is the gradient, or None."""
        begin, group = self._now(), self._group
        pieces = [np.array(head).view(np.uint8)]
        if g is not None:
            assert isinstance(g, np.ndarray)
            context = self._context(server, group.step, group.rank)
            pieces.append(self._codec.encode_next(g[part[0] : part[1]], self._residuals, context))
        payload = np.concatenate(pieces)
        group.meter.comm += self._now() - begin
        group.send(payload, server, tag=PUSH, sequence=version, codec=self._codec.code)

    def receive(self, server: int, part: tuple[int, int], w: Array) -> tuple[Notes, int]:
        """Add what a server's answer says to ``w`` (P,); return its notes and its version."""
        message = self._group.recv(server, tag=ANSWER)
        begin, slice_ = self._now(), w[part[0] : part[1]]
        self._check(message)
        slice_ += self._decoded(message, _NOTES, len(slice_), self._context(server, message.sequence, server))
        self._group.meter.comm += self._now() - begin
        return Notes(*message.array[:_NOTES].view(np.float64).tolist()), message.sequence

    # A server's side.

    def read(self, message: Message) -> Received:
        """Read a worker's message."""
        self._check(message)
        assert self._known is not None
        head = Head(*message.array[:_HEAD].view(np.float64).tolist())
        if head.kind != GRADIENT:
            return Received(head, None, None)
        begin, context = self._now(), self._context(self._group.rank, message.step, message.source)
        gradient = self._decoded(message, _HEAD, self._known.shape[1], context)
        self._group.meter.comm += self._now() - begin
        return Received(head, gradient, None)

    def answer(self, values: Array, notes: Notes, dest: int, version: int) -> None:
        """Tell a worker what has changed."""
        assert self._known is not None
        begin, group, known = self._now(), self._group, self._known[dest]
        context = self._context(group.rank, version, group.rank)
        coded = self._codec.encode(values - known, context, state=self._kept[dest])
        change = np.empty_like(known)
        self._codec.decode(coded, change, context)
        known += change
        payload = np.concatenate([np.array(notes).view(np.uint8), coded])
        group.meter.comm += self._now() - begin
        group.send(payload, dest, tag=ANSWER, sequence=version, codec=self._codec.code)

    def counts(self) -> dict[str, Array]:
        """Return what a server knows of its workers, for whoever goes on after a loss."""
        assert self._known is not None
        kept = {f"{_KEPT}{worker} {name}": array for worker, of in enumerate(self._kept) for name, array in of.items()}
        return {_KNOWN: self._known} | kept

    def begin(self, w: Array) -> None:
        """Begin again on a server: all workers have its slice ``w``."""
        assert self._known is not None
        self._known[:] = w

    def go_on(self, counts: Mapping[str, Array]) -> None:
        """Go on with the same workers from `counts`."""
        self._known = counts[_KNOWN].copy()
        for name, array in counts.items():
            if name.startswith(_KEPT):
                worker, _, own = name.removeprefix(_KEPT).partition(" ")
                self._kept[int(worker)][own] = array.copy()

    # Both sides.

    def _context(self, server: int, step: int, rank: int) -> CodecContext:
        return self._stamps[server - self._first_server].at(step, rank)

    def _decoded(self, message: Message, offset: int, length: int, context: CodecContext) -> Array:
        out = np.empty(length, self._dtype)
        self._codec.decode(message.array[offset:], out, context)
        return out

    def _check(self, message: Message) -> None:
        if message.codec != self._codec.code:
            group = self._group
            raise Mismatch(
                f"rank {group.rank} uses {self._codec!r}, rank {message.source} sends what is coded otherwise at step "
                f"{message.step}: all ranks must use the same strategy",
                rank=group.rank, peer=message.source, step=message.step,
            )  # fmt: skip
