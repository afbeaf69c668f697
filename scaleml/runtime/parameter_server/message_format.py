"""Message formats between workers and servers: whole slices, or the keys and values of what a batch touches.

A push ends (dense) or begins (sparse) with a *head*; an answer ends with *notes*. Nothing else depends on the form, so a form is
the place for a codec of gradients, too.
"""

from __future__ import annotations

from typing import Final, NamedTuple, final

import numpy as np
from numpy.typing import DTypeLike

from scaleml.arrays import Array
from scaleml.comm.communicator import Communicator, Message
from scaleml.runtime.plan import Plan
from scaleml.strategies.context import TAIL, SparseGradient

PUSH, BODY, ANSWER, WHOLE, BYE, FINAL, STATE, KEPT = range(1, 9)  # tags

GRADIENT: Final = 0
"""What a head says the message is: a gradient;"""
NOTHING: Final = 1
"""no gradient, for the worker has no rows in this batch, but a clock like any other;"""
ASK: Final = 2
"""a worker that was called away from its waiting, or needs other keys, waits again;"""
COPY: Final = 3
"""a worker wants all parameters, for an evaluation;"""
LEAVE: Final = 4
"""it pushes no more;"""
SAVE: Final = 5
"""it waits until the server's state has been taken, for a checkpoint: once all workers have said so;"""
KEEP: Final = 6
"""it wants a copy of all that the server has, to keep it for whoever takes the server's place."""


class Head(NamedTuple):
    """What every message of a worker says: the tail of its gradient, what took it from its work, what the message is.

    ``excluded`` are the seconds so far that are no training time: evaluations and pauses.
    """

    loss: float = 0.0
    weight: float = 0.0
    rows: float = 0.0
    excluded: float = 0.0
    kind: float = GRADIENT


class Notes(NamedTuple):
    """What every answer says.

    Parameters
    ----------
    staleness : float
        Of the push, in updates.
    due, done : float
        Evaluations due so far; whether the run has had all its rows.
    hold : float
        Whether the worker, called to an evaluation, has to wait again afterwards.
    culprit, held : float
        The rank that the server waited for before it answered, and for how many seconds.
    """

    staleness: float
    due: float
    done: float
    hold: float
    culprit: float
    held: float


HEAD: Final = len(Head._fields)
NOTES: Final = len(Notes._fields)


def slices(plan: Plan) -> list[tuple[int, int]]:
    """Return each server's slice of the parameters."""
    return [plan.partition.slices[owner] for owner in plan.partition.owners]


def are_applied_together(plan: Plan) -> bool:
    """Whether an update is the mean of all workers' gradients: only a server then has it whole, in slices."""
    return plan.strategy.updates_a_batch(2) == 1


class Received(NamedTuple):
    """A worker's message as its server reads it: the gradient of its slice, or None, and the keys to answer with."""

    head: Head
    gradient: Array | SparseGradient | None
    wants: Array | None


def buffer_items(plan: Plan) -> int:
    """Return how many items a worker's buffer has: a gradient, its head, and copies of these that are still being read."""
    copies = 2 if plan.serving.overlap and plan.serving.compression is None else 0
    return (plan.model.size + HEAD) * (1 + copies)


@final
class DenseFormat:
    """Whole slices, from and into shared memory where there is some.

    Parameters
    ----------
    buffer : (n * (P + HEAD),) array or None
        A worker's gradient, its tail and the rest of the head. Then room for copies, where the next gradient is computed while
        the last push may still be read: one for each push that may be unanswered when another is made. On a server nothing.
    """

    def __init__(self, group: Communicator, buffer: Array | None, size: int = 0) -> None:
        self._group = group
        if buffer is not None:
            self._gradient, *self._copies = buffer.reshape(-1, size + HEAD)

    # A worker's side.

    def send(
        self, head: Head, g: Array | SparseGradient | None, server: int, part: tuple[int, int], last: bool, version: int
    ) -> None:
        """Send a message to a server; ``g`` is the gradient in the buffer, or None."""
        group, buffer, (a, b) = self._group, self._gradient, part
        if self._copies and g is not None:
            if a == 0:  # the first server: once a push
                self._copies.reverse()
                self._copies[0][:-HEAD] = buffer[:-HEAD]
            buffer = self._copies[0]
        if g is None:  # what lies in the buffer may still be read
            group.send(np.array(head, buffer.dtype), server, tag=PUSH, sequence=version)
            return
        buffer[-HEAD:] = head
        if last:  # the head lies behind this slice: one message
            group.send(buffer[a:], server, tag=PUSH, sequence=version)
            return
        group.send(buffer[-HEAD:], server, tag=PUSH, sequence=version)
        group.send(buffer[a:b], server, tag=BODY)

    def receive(self, server: int, part: tuple[int, int], w: Array) -> tuple[Notes, int]:
        """Receive a server's answer into ``w`` (P,); return its notes and its version."""
        message = self._group.recv(server, tag=ANSWER, view=True)
        w[part[0] : part[1]] = message.array[:-NOTES]
        return Notes(*message.array[-NOTES:].tolist()), message.sequence

    # A server's side.

    def read(self, message: Message) -> Received:
        """Read a worker's message."""
        payload = message.array
        head = Head(*payload[-HEAD:].tolist())
        gradient = payload[:-HEAD]
        if head.kind != GRADIENT:
            return Received(head, None, None)
        if not len(gradient):
            gradient = self._group.recv(message.source, tag=BODY, view=True).array
        # Perhaps the worker's own memory: it has used this gradient up, and waits for the answer.
        gradient.flags.writeable = True
        return Received(head, gradient, None)


@final
class SparseFormat:
    """The keys and values of what a batch touches, and the keys of the next batch, whose parameters are the answer."""

    def __init__(self, group: Communicator, dtype: DTypeLike, width: int) -> None:
        self._group = group
        self._dtype = np.dtype(dtype)
        self._width = width
        self.wants: Array = np.zeros(0, np.int32)
        """A worker: the keys that it asks for."""
        self._cuts: dict[int, tuple[int, int]] = {}

    # A worker's side.

    def send(
        self, head: Head, g: Array | SparseGradient | None, server: int, part: tuple[int, int], last: bool, version: int
    ) -> None:
        """Send a message to a server: what of ``g`` belongs to it, and what of `wants`."""
        assert g is None or isinstance(g, SparseGradient), "a dense gradient has a format of its own"
        first, end = part[0] // self._width, part[1] // self._width
        a, b = self._cuts[server] = tuple(np.searchsorted(self.wants, (first, end)).tolist())
        pieces = [self.wants[a:b] - first]
        count = 0
        if g is not None:
            c, d = np.searchsorted(g.keys, (first, end)).tolist()
            count = d - c
            pieces = [g.values[c * self._width : d * self._width], g.keys[c:d] - first, *pieces]
        start = np.array([*head, count, b - a], np.float64)
        payload = np.concatenate([start.view(np.uint8), *[piece.view(np.uint8) for piece in pieces]])
        self._group.send(payload, server, tag=PUSH, sequence=version)

    def receive(self, server: int, part: tuple[int, int], w: Array) -> tuple[Notes, int]:
        """Receive a server's answer into ``w`` (P,) at the keys that were asked for; return its notes and its version."""
        message = self._group.recv(server, tag=ANSWER, view=True)
        a, b = self._cuts[server]
        w.reshape(-1, self._width)[self.wants[a:b]] = message.array[:-NOTES].reshape(-1, self._width)
        return Notes(*message.array[-NOTES:].tolist()), message.sequence

    # A server's side.

    def read(self, message: Message) -> Received:
        """Read a worker's message; its keys count from the slice's first."""
        payload, width = message.array, self._width
        *head, count, wanted = np.frombuffer(payload, np.float64, HEAD + 2).tolist()
        count, wanted = int(count), int(wanted)
        at = 8 * (HEAD + 2)
        values = np.frombuffer(payload, self._dtype, count * width, at).copy()
        at += values.nbytes
        keys = np.frombuffer(payload, np.int32, count + wanted, at)
        gradient = SparseGradient(keys[:count], values, width) if head[-1] == GRADIENT else None
        return Received(Head(*head), gradient, keys[count:])


assert Head._fields[:TAIL] == ("loss", "weight", "rows"), "a gradient's tail is the beginning of a head"
