"""The links of one thread, one to every peer: which of them live, what came for somebody else, waiting for several."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from scaleml.comm.errors import CommError
from scaleml.comm.meter import Meter
from scaleml.comm.transport.context import RankContext
from scaleml.comm.transport.frame import CONTROL, DELAYED, KINDS, Header, Key, delay_of
from scaleml.comm.transport.link import Link, LinkClosed
from scaleml.comm.transport.poller import Poller


class LinkSet:
    """The links of one thread of a rank; ``links[own rank]`` is None. One thread at a time uses them.

    Each two ranks have two: the calling thread's, and the progress thread's. So no socket is ever shared by threads.

    Attributes
    ----------
    meter : Meter
        Where these links' bytes are counted.
    blocked, blocker : float, int
        Seconds this operation waited for first headers, and for which peer last.
    lost : set of int
        Peers whose links are known to be closed.
    summed : bool
        Whether payloads carry sums.
    unsent : set of int
        Peers to which frames were started that have not all gone.
    """

    def __init__(self, context: RankContext, links: Sequence[Link | None], meter: Meter) -> None:
        self.context = context
        self.links = list(links)
        self.meter = meter
        self.blocked = 0.0
        self.blocker = 0
        self.lost: set[int] = set()
        self.summed = any(link.sums for link in links if link)
        self.unsent: set[int] = set()
        self._stashed = 0  # frames in inboxes
        self._poller = Poller(self.links)
        for link in self.links:
            if link:
                link.meter = meter

    def link(self, peer: int) -> Link:
        """Return the link to `peer`."""
        link = self.links[peer]
        assert link is not None, "a rank has no link to itself"
        return link

    def alive(self) -> set[int]:
        """Return the peers that are not known to be lost."""
        return {peer for peer, link in enumerate(self.links) if link and peer not in self.lost}

    def lose(self, peer: int, what: object) -> CommError:
        """Note that the link to `peer` is closed; return the error to raise."""
        if peer not in self.lost and self.link(peer).sock.fileno() >= 0:
            self.lost.add(peer)
            self._poller.forget(peer)
        self.unsent.discard(peer)
        return self.context.lost(peer, what)

    def wait(self, readers: Iterable[int], writers: Iterable[int], what: object) -> tuple[float, list[int]]:
        """Wait until something can be read or written; return for how long, and the peers in question."""
        seconds, ready = self._poller.wait(readers, writers, self.context.timeout * 1e3)
        if not ready:
            ready = [next(iter((*readers, *writers)))]
            self.context.stalled(ready[0], what, seconds)
        return seconds, ready

    # --- frames in front ------------------------------------------------------------------------------------------

    def next_header(self, peer: int, key: Key, what: object) -> Header | None:
        """Return the header of collective `key`'s next frame, if it is here; other frames before it are stashed."""
        link = self.link(peer)
        try:
            while True:
                if link.inbox and link.replay(key.group):
                    self._stashed -= 1
                header = link.peek()
                if header is None or (link.partial is None and key.fits(header, peer, self.context)):
                    return header
                if not self.stash(link, False, what):
                    return None
        except LinkClosed:
            raise self.lose(peer, what) from None

    def exclude_delay(self, header: Header, seconds: float) -> None:
        """Of `seconds` of waiting for a frame, those for which a bad link held it back are no waiting for its sender."""
        if header.flags >= DELAYED:
            self.blocked = max(0.0, self.blocked - self.context.note_delay(min(delay_of(header), seconds)))

    # --- frames for somebody else ---------------------------------------------------------------------------------

    def stash(self, link: Link, block: bool, what: object) -> bool:
        """Read the frame in front, which is not for the caller, into the inbox; False if it is not all here yet."""
        header = link.peek()
        assert header is not None
        if link.partial is None:
            if header.kind not in KINDS or (header.kind == CONTROL and link.peer):
                raise link.corrupt(f"there is no frame of kind {header.kind} from rank {link.peer}", header.step)
            link.partial = link.room(header)
        while not link.read_into(link.partial, block):
            if not block:
                return False
            self.context.stalled(link.peer, what, self.context.timeout)
        payload, link.partial = link.partial, None
        if header.kind == CONTROL:
            self.context.announcements[header.sequence] = bytes(payload)
            self.context.raise_control(header.sequence)
        else:
            link.inbox.append((header, payload))
            self._stashed += 1
        return True
