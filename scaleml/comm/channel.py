"""One link to every peer, and the ways of waiting for several of them. One thread at a time uses a channel.

Each two ranks have two: the calling thread's, and the progress thread's. So no socket is ever shared by threads.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from time import perf_counter
from typing import Any, final

from .errors import CommError
from .frame import CONTROL, HEADER, HELD, MESSAGE, Header, held, payload_sum, size_of
from .key import Key
from .link import Link, LinkClosed
from .mesh import Mesh
from .meter import Meter
from .poller import Poller
from .pump import Pump

ANY = -1
"""As a source: whoever sends first."""

LOOKS = 8 if (os.cpu_count() or 1) > 1 else 1
"""How often to look for a frame, some 10 us in all, before sleeping: to be woken takes 25 to 50 us."""

Found = tuple[int, Header, Any]
"""A message: its peer, its header, its payload; None if that is still to be taken from the link."""


@final
class Channel:
    """The links of one thread of a rank; ``links[own rank]`` is None.

    Attributes
    ----------
    meter : Meter
        Where this channel's bytes are counted.
    blocked, blocker : float, int
        Seconds this operation waited for first headers, and for which peer last.
    lost : set of int
        Peers whose links are known to be closed.
    summed : bool
        Whether payloads carry sums.
    """

    def __init__(self, mesh: Mesh, links: Sequence[Link | None], meter: Meter) -> None:
        self.mesh = mesh
        self.links = list(links)
        self.meter = meter
        self.blocked = 0.0
        self.blocker = 0
        self.lost: set[int] = set()
        self.summed = any(link.sums for link in links if link)
        self._stashed = 0  # frames in inboxes
        self._ready: list[int] = []  # links with something to read, in the order in which it came
        self._poller = Poller(self.links)
        for link in self.links:
            if link:
                link.meter = meter

    def link(self, peer: int) -> Link:
        """The link to `peer`."""
        link = self.links[peer]
        assert link is not None, "a rank has no link to itself"
        return link

    def alive(self) -> set[int]:
        """Peers that are not known to be lost."""
        return {peer for peer, link in enumerate(self.links) if link and peer not in self.lost}

    def checksum(self, payload: Any) -> int:
        """The sum to put into a header, 0 where the links do without."""
        return payload_sum(payload, size_of(payload)) if self.summed else 0

    def send(self, peers: Iterable[int], header: bytes, payload: Any, what: object) -> None:
        """Send one frame to each of `peers`; while it does not go, frames that come are put aside."""
        size = HEADER + size_of(payload)
        unsent: set[int] | None = None
        for peer in peers:
            link = self.links[peer]
            assert link is not None
            if link.outbox:  # of an earlier send, ended by another peer's loss
                Pump(self, what, {peer}, lambda peer: None, {}).run()
            try:
                sent = link.send(header, payload)
            except LinkClosed:
                raise self.lose(peer, what) from None
            if sent != size:
                link.load(header, payload)
                link.trim(sent)
                unsent = {peer} if unsent is None else unsent | {peer}
        if unsent is not None:
            Pump(self, what, unsent, lambda peer: None, {}).run()

    # --- a collective's frames ------------------------------------------------------------------------------------

    def swap(self, peers: Sequence[int], header: bytes, payload: Any, key: Key) -> list[memoryview]:
        """Send a small payload to all `peers`, return theirs: views that are valid until the links are read again."""
        self.send(peers, header, payload, key)
        return self.collect(peers, key)

    def collect(self, peers: Sequence[int], key: Key) -> list[memoryview]:
        """Return the small payloads of all `peers`: views that are valid until the links are read again."""
        if len(peers) == 1:
            self.await_front(peers[0], key)
            return [self.take(peers[0], key)]
        self._await_fronts(peers, key)
        return [self.take(peer, key) for peer in peers]

    def take(self, peer: int, what: object, target: memoryview | None = None) -> memoryview:
        """Take the payload in front: into `target`, or if small as a view that is valid until the next read."""
        link = self.link(peer)
        try:
            while True:
                if target is not None:
                    if link.into(target, True):
                        return target
                elif (view := link.body(True)) is not None:
                    return view
                self.mesh.stalled(peer, what, self.mesh.timeout)
        except LinkClosed:
            raise self.lose(peer, what) from None

    def front(self, peer: int, key: Key, what: object) -> Header | None:
        """The header of collective `key`'s next frame, if it is here; other frames before it are put aside."""
        link = self.link(peer)
        try:
            while True:
                if link.inbox and link.restore(key.group):
                    self._stashed -= 1
                header = link.head()
                if header is None or (link.aside is None and self._fits(header, key, peer)):
                    return header
                if not self.put_aside(link, False, what):
                    return None
        except LinkClosed:
            raise self.lose(peer, what) from None

    def _await_fronts(self, peers: Sequence[int], key: Key) -> None:
        waiting: Sequence[int] = peers
        for _ in range(max(1, LOOKS // max(1, len(peers)))):
            waiting = [peer for peer in waiting if self.front(peer, key, key) is None]
        while len(waiting) > 1:  # not one after the other: the death of any of them must show at once
            seconds, ready = self.wait(waiting, (), key)
            self.blocked += seconds
            self.blocker = ready[-1]
            fronts = {peer: self.front(peer, key, key) for peer in ready}
            waiting = [peer for peer in waiting if fronts.get(peer) is None]
            for header in filter(None, fronts.values()):
                self.excuse(header, seconds)
        for peer in waiting:
            self.await_front(peer, key)

    def await_front(self, peer: int, key: Key) -> Header:
        """Wait for the header of the collective's next frame from `peer`."""
        link = self.link(peer)
        try:
            while True:
                if link.inbox and link.restore(key.group):
                    self._stashed -= 1
                header = self._await_head(link, key)
                if link.aside is None and self._fits(header, key, peer):
                    return header
                self.put_aside(link, True, key)
        except LinkClosed:
            raise self.lose(peer, key) from None

    def _await_head(self, link: Link, what: object, forever: bool = False, looks: int = LOOKS) -> Header:
        start = perf_counter()
        for _ in range(looks):
            header = link.head()
            if header is not None:
                return header
        while (header := link.head(True)) is None:
            if forever:
                self.mesh.check()
            else:
                self.mesh.stalled(link.peer, what, perf_counter() - start)
        seconds = perf_counter() - start
        self.blocked += seconds
        self.blocker = link.peer
        self.excuse(header, seconds)
        return header

    def excuse(self, header: Header, seconds: float) -> None:
        """Of `seconds` of waiting for a frame, those for which a bad link held it back are no waiting for its sender."""
        if header.flags >= HELD:
            self.blocked = max(0.0, self.blocked - self.mesh.delayed(min(held(header), seconds)))

    def _fits(self, header: Header, key: Key, peer: int) -> bool:
        if header.control > self.mesh.control:
            self.mesh.heed(header.control)
        return key.fits(header, self.mesh.rank, peer, self.mesh.step)

    # --- messages -------------------------------------------------------------------------------------------------

    def message(self, peers: Sequence[int], group: int, tag: int, what: object) -> Found:
        """Wait for the next message for (`group`, `tag`) from any of `peers`."""
        if len(peers) == 1 and not self._stashed:
            link = self.link(peers[0])
            try:
                # One look: whoever answers has to work on it first, perhaps on this very core.
                first = self._await_head(link, what, looks=1)
                if link.aside is None and self._is_message(first, group, tag):
                    return peers[0], first, None
            except LinkClosed:
                raise self.lose(peers[0], what) from None
        start = perf_counter()
        while (found := self.find(peers, group, tag, what)) is None:
            alive = [peer for peer in peers if peer not in self.lost]
            if not alive:
                raise self.mesh.lost(peers[0], what)
            begin = perf_counter()
            self._ready = self._poll(alive, self.mesh.timeout * 1e3)
            self.blocked += perf_counter() - begin
            if not self._ready:
                self.mesh.stalled(alive[0] if len(alive) == 1 else ANY, what, perf_counter() - start)
        self.blocker = found[0]
        self.excuse(found[1], self.blocked)
        if found[2] is None:
            self._ready.remove(found[0])
        else:
            self.link(found[0]).inbox.remove(found[1:])
            self._stashed -= 1
        return found

    def find(self, peers: Sequence[int], group: int, tag: int, what: object, patience: float = 0) -> Found | None:
        """`message`, if there is one now, or the next frames within so many milliseconds bring one; it stays where it is."""
        queue = self._ready  # from the last poll: all of them have their turn before the next one
        while True:
            if self._stashed:
                for peer in peers:
                    for header, payload in self.link(peer).inbox:
                        if self._is_message(header, group, tag):
                            return peer, header, payload
            stashed, polled = self._stashed, not queue
            for position, peer in enumerate(queue := queue or self._poll(peers, patience)):
                if peer in peers and peer not in self.lost:
                    front = self._look(peer, group, tag, what)
                    if front is not None:
                        self._ready = queue[position:]
                        return peer, front, None
            self._ready = queue = []
            if polled and self._stashed == stashed:
                return None

    def _look(self, peer: int, group: int, tag: int, what: object) -> Header | None:
        link = self.link(peer)
        try:
            while (header := link.head()) is not None:
                wanted = self._is_message(header, group, tag)
                if wanted and link.aside is None:
                    return header
                if not self.put_aside(link, False, what) or wanted:
                    return None  # if wanted, it is in the inbox now: what follows it must not overtake it
        except LinkClosed:
            raise self.lose(peer, what) from None
        return None

    def _is_message(self, header: Header, group: int, tag: int) -> bool:
        if header.control > self.mesh.control:
            self.mesh.heed(header.control)
        return header.kind == MESSAGE and header.group == group and header.tag == tag

    # --- frames for somebody else ---------------------------------------------------------------------------------

    def put_next_aside(self, peer: int, what: object, forever: bool = False) -> None:
        """Put one more frame from `peer` aside, whatever it is."""
        link = self.link(peer)
        try:
            self._await_head(link, what, forever)
            self.put_aside(link, True, what)
        except LinkClosed:
            raise self.lose(peer, what) from None

    def put_aside(self, link: Link, block: bool, what: object) -> bool:
        """Read the frame in front, which is not for the caller, into the inbox; False if it is not all here yet."""
        header = link.head()
        assert header is not None
        if link.aside is None:
            link.aside = bytearray(header.length)
        while not link.into(memoryview(link.aside), block):
            if not block:
                return False
            self.mesh.stalled(link.peer, what, self.mesh.timeout)
        payload, link.aside = link.aside, None
        if header.kind == CONTROL:
            self.mesh.announcements[header.sequence] = bytes(payload)
            self.mesh.heed(header.sequence)
        else:
            link.inbox.append((header, payload))
            self._stashed += 1
        return True

    # --- polling --------------------------------------------------------------------------------------------------

    def _poll(self, peers: Sequence[int], milliseconds: float) -> list[int]:
        alive = [peer for peer in peers if peer not in self.lost]
        here = [peer for peer in alive if self.link(peer).buffered]
        every = len(peers) + 1 == len(self.links)
        found = self._poller.readable(alive, 0 if here else milliseconds, every)
        return here + [peer for peer in found if peer not in here]

    def wait(self, readers: Iterable[int], writers: Iterable[int], what: object) -> tuple[float, list[int]]:
        """Wait until something can be read or written; return for how long, and the peers in question."""
        seconds, ready = self._poller.wait(readers, writers, self.mesh.timeout * 1e3)
        if not ready:
            ready = [next(iter((*readers, *writers)))]
            self.mesh.stalled(ready[0], what, seconds)
        return seconds, ready

    def lose(self, peer: int, what: object) -> CommError:
        """Note that the link to `peer` is closed; return the error to raise."""
        if peer not in self.lost and self.link(peer).sock.fileno() >= 0:
            self.lost.add(peer)
            self._poller.forget(peer)
        return self.mesh.lost(peer, what)
