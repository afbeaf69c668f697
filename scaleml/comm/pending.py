"""Messages that were started to be received, for any communicator: first come, first served."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

from scaleml.comm.communicator import ANY, Message


@final
class PendingMessage:
    """A message to come, received when it is waited for.

    Parameters
    ----------
    source, tag : int
        What is to be received.
    queue : list of PendingMessage
        All of the communicator that have not been received; this one is appended.
    receive : callable
        Receives it.
    is_here : callable
        Says whether `receive` would return at once.
    """

    def __init__(
        self,
        source: int,
        tag: int,
        queue: list[PendingMessage],
        receive: Callable[[], Message],
        is_here: Callable[[], bool],
    ) -> None:
        self._source = source
        self._tag = tag
        self._queue = queue
        self._receive = receive
        self._is_here = is_here
        self._message: Message | None = None
        queue.append(self)

    def takes(self, source: int, tag: int) -> bool:
        """Whether a message for (`source`, `tag`) may be this one."""
        return tag == self._tag and (self._source == source or ANY in (self._source, source))

    def done(self) -> bool:
        """Whether `wait` would return at once."""
        return self._message is not None or (self._first() is self and self._is_here())

    def wait(self) -> Message:
        """Receive it, after all that were started before and may be the same."""
        while self._message is None:
            first = self._first()
            first._message = first._receive()
            self._queue.remove(first)
        return self._message

    def _first(self) -> PendingMessage:
        return next(one for one in self._queue if one is self or one.takes(self._source, self._tag))


def receive_before(queue: list[PendingMessage], source: int, tag: int) -> None:
    """Receive all that were started before a message for (`source`, `tag`), and may be the same."""
    for earlier in [one for one in queue if one.takes(source, tag)]:
        earlier.wait()
