"""A pending send: what ``send_start`` returns."""

from __future__ import annotations

from typing import final

from scaleml.comm.transport import messages
from scaleml.comm.transport.frame import Frame
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
