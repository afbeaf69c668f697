"""Polling: waiting for several links at once."""

from __future__ import annotations

import select
from collections.abc import Iterable, Sequence
from typing import final

from scaleml.clock import WALL
from scaleml.comm.transport.link import Link

_now = WALL.now


@final
class Poller:
    """The sockets of a channel's links, by peer; None for a peer without one."""

    def __init__(self, links: Sequence[Link | None]) -> None:
        self._links = links
        self._peers: dict[int, int] = {}  # by file descriptor
        self._all = select.poll()
        for peer, link in enumerate(links):
            if link:
                self._peers[link.sock.fileno()] = peer
                self._all.register(link.sock, select.POLLIN)

    def readable(self, peers: Sequence[int], milliseconds: float, every: bool) -> list[int]:
        """Return those of `peers` (or of all, if they are `every` one) that can be read, after at most so long."""
        poll = self._all
        if not every:  # what others have sent must not end the waiting
            poll = select.poll()
            for peer in peers:
                poll.register(self._link(peer).sock, select.POLLIN)
        return [self._peers[descriptor] for descriptor, _ in poll.poll(milliseconds)]

    def wait(self, readers: Iterable[int], writers: Iterable[int], milliseconds: float) -> tuple[float, list[int]]:
        """Wait until something can be read or written; return for how many seconds, and all such peers."""
        events = dict.fromkeys(readers, select.POLLIN)
        for peer in writers:
            events[peer] = events.get(peer, 0) | select.POLLOUT
        poll = select.poll()
        for peer, mask in events.items():
            poll.register(self._link(peer).sock, mask)
        start = _now()
        found = poll.poll(milliseconds)
        return _now() - start, [self._peers[descriptor] for descriptor, _ in found]

    def forget(self, peer: int) -> None:
        """Leave a peer, whose socket is still open, out from now on."""
        self._all.unregister(self._link(peer).sock)

    def _link(self, peer: int) -> Link:
        link = self._links[peer]
        assert link is not None, "a rank has no link to itself"
        return link
