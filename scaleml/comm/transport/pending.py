"""Pending messages: what ``send_start`` and ``recv_start`` return."""

from __future__ import annotations

from typing import final

from scaleml.arrays import Array
from scaleml.comm.communicator import ANY, Message
from scaleml.comm.transport import messages
from scaleml.comm.transport.link import Frame
from scaleml.comm.transport.membership import Membership


@final
class PendingSend:
    """A message that was started; what was sent must be left alone until `wait` returned."""

    def __init__(self, members: Membership, frame: Frame) -> None:
        self._members = members
        self._frame = frame

    def done(self) -> bool:
        """Whether `wait` would return at once."""
        if not self._frame.gone:
            self._members.mesh.channel.flush(messages.ROOM)
        return self._frame.gone

    def wait(self) -> None:
        """Send the rest."""
        messages.send_finish(self._members, self._frame)


@final
class PendingMessage:
    """A message to come.

    Parameters
    ----------
    pending : list of PendingMessage
        All of the communicator that have not been received, this one to be appended: first come, first served.
    """

    def __init__(
        self, members: Membership, source: int, tag: int, out: Array | None, pending: list[PendingMessage]
    ) -> None:
        self._members = members
        self._source = source
        self._tag = tag
        self._out = out
        self._pending = pending
        self._message: Message | None = None

    def takes(self, source: int, tag: int) -> bool:
        """Whether a message for (`source`, `tag`) may be this one."""
        return tag == self._tag and (self._source == source or ANY in (self._source, source))

    def done(self) -> bool:
        """Whether `wait` would return at once."""
        if self._message is not None:
            return True
        return self._is_next() and messages.is_here(self._members, self._source, self._tag, 0.0)

    def wait(self) -> Message:
        """Receive it, after all that were started before."""
        while self._message is None:
            earlier = next(pending for pending in self._pending if pending is self or self._rivals(pending))
            earlier._receive()
        return self._message

    def _receive(self) -> None:
        self._message = messages.recv(self._members, self._source, self._tag, self._out, False)
        self._pending.remove(self)

    def _is_next(self) -> bool:
        return next(pending for pending in self._pending if pending is self or self._rivals(pending)) is self

    def _rivals(self, other: PendingMessage) -> bool:
        return other.takes(self._source, self._tag)


def receive_before(pending: list[PendingMessage], source: int, tag: int) -> None:
    """Receive all that were started before a message for (`source`, `tag`) and may be this one."""
    for earlier in [message for message in pending if message.takes(source, tag)]:
        earlier.wait()
