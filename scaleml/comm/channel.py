"""One link to every peer, and the ways of waiting on several of them at once. One thread at a time uses a channel.

There are two channels between each two ranks: the calling thread's, and the progress thread's. So no socket is ever
shared by threads, and collectives in the background never meet the frames of those in front.
"""

from __future__ import annotations

import select
from collections.abc import Callable, Iterable, Sequence
from time import perf_counter
from typing import Any, NamedTuple, final

from .errors import CommError, Mismatch
from .frame import COLLECTIVE, CONTROL, MESSAGE, Header, word_sum
from .link import Link, LinkClosed
from .mesh import Mesh
from .meter import Meter

ANY = -1
"""As a source: whoever sends first."""

OPS = ("barrier", "allreduce", "broadcast", "allgather", "allgather_bytes", "reduce_scatter")
BARRIER, ALLREDUCE, BROADCAST, ALLGATHER, ALLGATHER_BYTES, REDUCE_SCATTER = range(len(OPS))


class Key(NamedTuple):
    """What the ranks of a collective must agree on."""

    group: int
    sequence: int
    op: int
    dtype: int
    tag: int  # the number of items, where ranks must have the same

    def __str__(self) -> str:
        op = OPS[self.op] if self.op < len(OPS) else f"operation {self.op}"
        return f"{op} number {self.sequence} ({self.tag} items, dtype code {self.dtype})"


class Sink(NamedTuple):
    """What a collective does with the frames that a pump brings."""

    place: Callable[[int, Header], memoryview]
    """Where the payload of the frame from this peer goes: always the same answer for one frame."""
    arrived: Callable[[int, Header], None]
    """It is there."""


@final
class Channel:
    """The links of one thread of a rank; ``links[own rank]`` is None.

    Attributes
    ----------
    meter : Meter
        Where this channel's bytes are counted.
    blocked, blocker : float, int
        Seconds this operation waited for first headers, and for which peer last.
    """

    def __init__(self, mesh: Mesh, links: Sequence[Link | None], meter: Meter) -> None:
        self.mesh = mesh
        self.links = list(links)
        self.meter = meter
        self.blocked = 0.0
        self.blocker = 0
        self.lost: set[int] = set()  # known to be closed: `message` waits for them no more
        self.summed = any(link.sums for link in links if link)
        self._stashed = 0  # frames in inboxes
        self._ready: list[int] = []
        self._peers: dict[int, int] = {}  # by file descriptor
        self._readable = select.poll()
        for peer, link in enumerate(links):
            if link:
                link.meter = meter
                self._peers[link.sock.fileno()] = peer
                self._readable.register(link.sock, select.POLLIN)

    def link(self, peer: int) -> Link:
        """The link to `peer`."""
        link = self.links[peer]
        assert link is not None, "a rank has no link to itself"
        return link

    def checksum(self, payload: Any) -> int:
        """The sum to put into a header, 0 where the links do without."""
        return word_sum(payload) if self.summed else 0

    # --- sending --------------------------------------------------------------------------------------------------

    def send(self, peers: Iterable[int], header: bytes, payload: Any, what: object) -> None:
        """Send one frame to each of `peers`.

        While it does not go, frames that come are put aside: so ranks that all send first never lock each other up.
        """
        size = len(header) + (payload.nbytes if hasattr(payload, "nbytes") else len(payload))
        unsent = set()
        for peer in peers:
            link = self.link(peer)
            try:
                sent = link.send(header, payload)
            except LinkClosed:
                raise self._lose(peer, what) from None
            if sent != size:
                link.load(header, payload)
                link.trim(sent)
                unsent.add(peer)
        if unsent:
            self.pump(unsent, lambda peer: None, {}, None, None, what)

    # --- waiting for a collective's frames ------------------------------------------------------------------------

    def headers(self, peers: Sequence[int], key: Key, what: object) -> list[Header]:
        """Wait until the next frame of collective `key` is in front on every link; return their headers."""
        if len(peers) == 1:
            return [self._await_front(peers[0], key, what)]
        found = {peer: self._front(peer, key, what) for peer in peers}
        waiting = [peer for peer, header in found.items() if header is None]
        while len(waiting) > 1:  # not one after the other: the death of any of them must show at once
            self._wait(waiting, what)
            for peer in waiting:
                found[peer] = self._front(peer, key, what)
            waiting = [peer for peer in waiting if found[peer] is None]
        for peer in waiting:
            found[peer] = self._await_front(peer, key, what)
        return [header for header in found.values() if header is not None]

    def swap(self, peers: Sequence[int], header: bytes, payload: Any, key: Key, what: object) -> list[memoryview]:
        """Send a small payload to all `peers`, return theirs: views that are valid until the links are read again."""
        self.send(peers, header, payload, what)
        self.headers(peers, key, what)
        return [self.body(peer, what) for peer in peers]

    def finish(self, peers: Sequence[int], header: bytes, key: Key, what: object) -> None:
        """Swap empty frames; not counted as waiting, which ended with an operation's first headers."""
        blocked, blocker = self.blocked, self.blocker
        self.swap(peers, header, b"", key, what)
        self.blocked, self.blocker = blocked, blocker

    def body(self, peer: int, what: object) -> memoryview:
        """Take the small payload in front."""
        link = self.link(peer)
        try:
            while (view := link.body(True)) is None:
                self.mesh.stalled(peer, what, self.mesh.timeout)
        except LinkClosed:
            raise self._lose(peer, what) from None
        return view

    def into(self, peer: int, target: memoryview, what: object) -> None:
        """Take the payload in front into `target`."""
        link = self.link(peer)
        try:
            while not link.into(target, True):
                self.mesh.stalled(peer, what, self.mesh.timeout)
        except LinkClosed:
            raise self._lose(peer, what) from None

    def _front(self, peer: int, key: Key, what: object) -> Header | None:
        link = self.link(peer)
        try:
            while True:
                if link.inbox:
                    self._restore(link, key.group)
                header = link.head()
                if header is None or (link.aside is None and self._fits(header, key, peer)):
                    return header
                if not self._put_aside(link, False, what):
                    return None
        except LinkClosed:
            raise self._lose(peer, what) from None

    def _await_front(self, peer: int, key: Key, what: object) -> Header:
        link = self.link(peer)
        try:
            while True:
                if link.inbox:
                    self._restore(link, key.group)
                header = link.head() or self._await_head(link, what)
                if link.aside is None and self._fits(header, key, peer):
                    return header
                self._put_aside(link, True, what)
        except LinkClosed:
            raise self._lose(peer, what) from None

    def _await_head(self, link: Link, what: object) -> Header:
        start = perf_counter()
        while (header := link.head(True)) is None:
            self.mesh.stalled(link.peer, what, perf_counter() - start)
        self.blocked += perf_counter() - start
        self.blocker = link.peer
        return header

    def _fits(self, header: Header, key: Key, peer: int) -> bool:
        if header.control > self.mesh.control:
            self.mesh.heed(header.control)
        if header.kind != COLLECTIVE or header.group != key.group:
            return False
        if header.sequence != key.sequence or header.op != key.op or header.dtype != key.dtype or header.tag != key.tag:
            theirs = Key(header.group, header.sequence, header.op, header.dtype, header.tag)
            raise Mismatch(
                f"rank {self.mesh.rank} is in {key} at step {self.mesh.step}, rank {peer} in {theirs} at step "
                f"{header.step}: all ranks must call the same collectives in the same order with the same lengths",
                rank=self.mesh.rank, peer=peer, step=self.mesh.step,
            )  # fmt: skip
        return True

    # --- waiting for messages -------------------------------------------------------------------------------------

    def message(self, peers: Sequence[int], group: int, tag: int, what: object) -> tuple[int, Header, Any]:
        """Wait for the next message for (`group`, `tag`) from any of `peers`.

        Returns (peer, header, payload); the payload is None if it is still to be taken from the link.
        """
        if len(peers) == 1 and not self._stashed:
            link = self.link(peers[0])
            try:
                header = link.head() or self._await_head(link, what)
                if link.aside is None and self._is_message(header, group, tag):
                    return peers[0], header, None
            except LinkClosed:
                raise self._lose(peers[0], what) from None
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
        if found[2] is not None:
            self.link(found[0]).inbox.remove((found[1], found[2]))
            self._stashed -= 1
        return found

    def find(self, peers: Sequence[int], group: int, tag: int, what: object) -> tuple[int, Header, Any] | None:
        """`message`, if there is one now; it stays where it is."""
        for _ in range(2):
            if self._stashed:
                for peer in peers:
                    for header, payload in self.link(peer).inbox:
                        if self._is_message(header, group, tag):
                            return peer, header, payload
            stashed = self._stashed
            # `_ready` keeps the order in which links became readable: all of them have their turn before the next poll.
            queue = self._ready or self._poll(peers, 0)
            for position, peer in enumerate(queue):
                if peer in peers:
                    header = self._look(peer, group, tag, what)
                    if header is not None:
                        self._ready = queue[position + 1 :]
                        return peer, header, None
            self._ready = []
            if self._stashed == stashed:
                break
        return None

    def _look(self, peer: int, group: int, tag: int, what: object) -> Header | None:
        link = self.link(peer)
        try:
            while (header := link.head()) is not None:
                if link.aside is None and self._is_message(header, group, tag):
                    return header
                if not self._put_aside(link, False, what):
                    return None
        except LinkClosed:
            raise self._lose(peer, what) from None
        return None

    def _is_message(self, header: Header, group: int, tag: int) -> bool:
        if header.control > self.mesh.control:
            self.mesh.heed(header.control)
        return header.kind == MESSAGE and header.group == group and header.tag == tag

    # --- frames for somebody else ---------------------------------------------------------------------------------

    def put_next_aside(self, peer: int, what: object) -> None:
        """Put one more frame from `peer` aside, whatever it is."""
        link = self.link(peer)
        try:
            if link.head() is None:
                self._await_head(link, what)
            self._put_aside(link, True, what)
        except LinkClosed:
            raise self._lose(peer, what) from None

    def _put_aside(self, link: Link, block: bool, what: object) -> bool:
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

    def _restore(self, link: Link, group: int) -> None:
        """Put the group's next collective frame from the inbox in front again."""
        for position, (header, payload) in enumerate(link.inbox):
            if header.kind == COLLECTIVE and header.group == group:
                if link.aside is None and not link.replaying:
                    del link.inbox[position]
                    self._stashed -= 1
                    link.replay(header, payload)
                return

    # --- the pump -------------------------------------------------------------------------------------------------

    def pump(
        self,
        writers: set[int],
        supply: Callable[[int], tuple[bytes, Any] | None],
        awaiting: dict[int, int],
        key: Key | None,
        sink: Sink | None,
        what: object,
    ) -> None:
        """Send and receive on many links at once, in the calling thread.

        Parameters
        ----------
        writers : set of int
            Peers to send to; `sink` may add to it.
        supply : callable
            The next frame, as header and payload, for a peer; None if there is none for now.
        awaiting : dict
            How many frames of the collective `key` each peer still sends.
        key, sink
            None: all links are read meanwhile, and what comes is put aside.
        """
        unheard = set(awaiting)
        readers = awaiting if sink else dict.fromkeys(p for p, k in enumerate(self.links) if k and p not in self.lost)
        while writers or awaiting:
            before = self.meter.bytes_sent + self.meter.bytes_received
            moved = False
            for peer in tuple(writers):
                self._write(peer, writers, supply, what)
            for peer in tuple(readers):
                moved |= self._feed(peer, key, sink, awaiting, unheard, what) if key and sink else self._drain(peer, readers, what)
            if not moved and self.meter.bytes_sent + self.meter.bytes_received == before:
                blocked = self._wait(readers, what, writers)
                if not unheard:  # waiting ended with the first headers: this is the wire
                    self.blocked -= blocked

    def _write(self, peer: int, writers: set[int], supply: Callable[[int], tuple[bytes, Any] | None], what: object) -> None:
        link = self.link(peer)
        try:
            while link.flush():
                frame = supply(peer)
                if frame is None:
                    writers.discard(peer)
                    return
                link.load(*frame)
        except LinkClosed:
            raise self._lose(peer, what) from None

    def _feed(self, peer: int, key: Key, sink: Sink, awaiting: dict[int, int], unheard: set[int], what: object) -> bool:
        header = self._front(peer, key, what)
        if header is None:
            return False
        unheard.discard(peer)
        try:
            if not self.link(peer).into(sink.place(peer, header)):
                return False
        except LinkClosed:
            raise self._lose(peer, what) from None
        awaiting[peer] -= 1
        if not awaiting[peer]:
            del awaiting[peer]
        sink.arrived(peer, header)
        return True

    def _drain(self, peer: int, readers: dict[int, Any], what: object) -> bool:
        link = self.link(peer)
        try:
            return link.head() is not None and self._put_aside(link, False, what)
        except LinkClosed:  # whoever waits for it will be told
            del readers[peer]
            return True

    # --- polling --------------------------------------------------------------------------------------------------

    def _poll(self, peers: Sequence[int], milliseconds: float) -> list[int]:
        here = [peer for peer in peers if self.link(peer).buffered and peer not in self.lost]
        poll = self._readable
        if len(peers) + 1 < len(self.links):  # not all: what others have sent must not end the waiting
            poll = select.poll()
            for peer in peers:
                if peer not in self.lost:
                    poll.register(self.link(peer).sock, select.POLLIN)
        found = [self._peers[descriptor] for descriptor, _ in poll.poll(0 if here else milliseconds)]
        return here + [peer for peer in found if peer not in here]

    def _wait(self, readers: Iterable[int], what: object, writers: Iterable[int] = ()) -> float:
        events = dict.fromkeys(readers, select.POLLIN)
        for peer in writers:
            events[peer] = events.get(peer, 0) | select.POLLOUT
        poll = select.poll()
        for peer, mask in events.items():
            poll.register(self.link(peer).sock, mask)
        start = perf_counter()
        found = poll.poll(self.mesh.timeout * 1e3)
        seconds = perf_counter() - start
        self.blocked += seconds
        if found:
            self.blocker = self._peers[found[-1][0]]
        else:
            self.mesh.stalled(next(iter(events)), what, seconds)
        return seconds

    def _lose(self, peer: int, what: object) -> CommError:
        if peer not in self.lost:
            self.lost.add(peer)
            try:
                self._readable.unregister(self.link(peer).sock)
            except (KeyError, ValueError, OSError):  # closed by ourselves
                pass
        return self.mesh.lost(peer, what)
