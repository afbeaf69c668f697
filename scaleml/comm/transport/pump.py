"""Deadlock-free send and receive over many links, in the calling thread: all ranks may send first and none locks up."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, final

from scaleml.comm.transport.frame import DELAYED, Header, Key, Payload, delay_of
from scaleml.comm.transport.link import LinkClosed
from scaleml.comm.transport.link_set import LinkSet

Supply = Callable[[int], tuple[bytes, Payload] | None]
"""The next frame for a peer, as header and payload; None if there is none for now."""


class Sink(NamedTuple):
    """What a collective does with the frames that come."""

    key: Key
    place: Callable[[int, Header], memoryview]
    """Where the payload of the frame from this peer goes: always the same answer for one frame."""
    arrived: Callable[[int, Header], None]
    """It is there."""


def nothing_more(peer: int) -> None:
    """Supply no frames but those that are in the links' outboxes."""


@final
class Pump:
    """One exchange.

    Parameters
    ----------
    links : LinkSet
        Over which.
    writers : set of int
        Peers to send to; the sink may add to it.
    awaiting : dict
        How many frames each peer still sends to the sink.
    sink : Sink, optional
        None: all links are read meanwhile, and what comes is stashed for later.
    until : callable, optional
        Asked between two rounds: True ends the exchange, whatever is left.
    """

    def __init__(
        self,
        links: LinkSet,
        what: object,
        writers: set[int],
        supply: Supply,
        awaiting: dict[int, int],
        sink: Sink | None = None,
        until: Callable[[], bool] | None = None,
    ) -> None:
        self._links = links
        self._what = what
        self._writers = writers
        self._started = links.unsent - writers  # whoever is to send to us may wait for what was started
        self._supply = supply
        self._awaiting = awaiting
        self._sink = sink
        self._until = until
        self._unheard = set(awaiting)
        self._full: set[int] = set()  # writers that take no more for now, ...
        self._dry: set[int] = set()  # ... and links that have no more to read: many are looked at only when they do
        self._idle = 0.0
        self._bystanders = set() if sink else links.alive()

    def run(self) -> None:
        """Work until all is sent and received."""
        awaited = [self._links.link(peer) for peer in self._awaiting]
        for link in awaited:
            link.greedy = False
        try:
            self._work()
        finally:
            for link in awaited:
                link.greedy = True

    def _work(self) -> None:
        while self._writers or self._awaiting:
            for peer in self._writers - self._full:
                self._write(peer)
            for peer in self._started - self._full:
                self._flush(peer)
            fed = [self._feed(peer) for peer in [*self._awaiting] if peer not in self._dry]
            drained = [self._drain(peer) for peer in self._bystanders - self._dry]
            if self._until is not None and self._until():
                return
            stuck = not (any(fed) or any(drained)) and self._writers <= self._full and self._started <= self._full
            if stuck and (self._writers or self._awaiting):
                self._wait()

    def _wait(self) -> None:
        links = self._links
        seconds, ready = links.wait(self._bystanders or self._awaiting, self._writers | self._started, self._what)
        self._full.difference_update(ready)
        self._dry.difference_update(ready)
        self._idle += seconds
        if self._unheard:  # afterwards it is the wire that we wait for
            links.blocked += seconds
            links.blocker = ready[-1]

    def _write(self, peer: int) -> None:
        link = self._links.link(peer)
        try:
            while link.flush():
                frame = self._supply(peer)
                if frame is None:
                    self._writers.discard(peer)
                    return
                header, payload = frame
                link.load(link.numbered(header), payload)
        except LinkClosed:
            raise self._links.lose(peer, self._what) from None
        self._full.add(peer)

    def _flush(self, peer: int) -> None:
        try:
            if self._links.link(peer).flush():
                self._started.discard(peer)
            else:
                self._full.add(peer)
        except LinkClosed:  # whoever waits for that message will be told
            self._started.discard(peer)

    def _feed(self, peer: int) -> bool:
        """Read on; True if a frame was completed."""
        sink = self._sink
        assert sink is not None
        header = self._links.next_header(peer, sink.key, self._what)
        if header is None:
            self._dry.add(peer)
            return False
        if peer in self._unheard:
            self._unheard.discard(peer)
            self._links.exclude_delay(header, self._idle)
        elif header.flags >= DELAYED:
            self._links.context.note_delay(min(delay_of(header), self._idle))
        try:
            if not self._links.link(peer).read_into(sink.place(peer, header)):
                self._dry.add(peer)
                return False
        except LinkClosed:
            raise self._links.lose(peer, self._what) from None
        self._awaiting[peer] -= 1
        if not self._awaiting[peer]:
            del self._awaiting[peer]
        sink.arrived(peer, header)
        return True

    def _drain(self, peer: int) -> bool:
        link = self._links.link(peer)
        try:
            if link.peek() is not None and self._links.stash(link, False, self._what):
                return True
        except LinkClosed:  # whoever waits for it will be told
            self._bystanders.discard(peer)
            return True
        self._dry.add(peer)
        return False
