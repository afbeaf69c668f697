"""The channel of one thread to all peers: sending, receiving for a collective, finding messages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import final

from scaleml.clock import WALL
from scaleml.comm.communicator import ANY
from scaleml.comm.errors import CommError
from scaleml.comm.meter import Meter
from scaleml.comm.transport.context import RankContext
from scaleml.comm.transport.frame import (
    COLLECTIVE,
    DELAYED,
    HEADER,
    MESSAGE,
    ROLE,
    SUMMED,
    Frame,
    Header,
    Key,
    Payload,
    delay_flags,
    encode,
    numbered,
    size_of,
)
from scaleml.comm.transport.link import Link, LinkClosed
from scaleml.comm.transport.link_set import LinkSet
from scaleml.comm.transport.payload_sum import payload_sum
from scaleml.comm.transport.pump import Pump, nothing_more
from scaleml.comm.transport.spin import LOOKS

Found = tuple[int, Header, Payload]
"""A message: its peer, its header, its payload; None if that is still to be taken from the link."""

_now = WALL.now


@final
class Channel(LinkSet):
    """The links of one thread of a rank, and the ways of talking over them."""

    def __init__(self, context: RankContext, links: Sequence[Link | None], meter: Meter) -> None:
        super().__init__(context, links, meter)
        self._ready: list[int] = []  # links with something to read, in the order in which it came

    # --- sending --------------------------------------------------------------------------------------------------

    def header(self, key: Key, payload: Payload, flags: int = 0, block: int = 0, kind: int = COLLECTIVE) -> bytes:
        """Encode a frame's header but for its number, stamped with this rank's step, control word and compute time."""
        context, total = self.context, 0
        size = len(payload) if type(payload) is bytes else payload.nbytes  # `size_of`, without a call
        if self.summed:
            flags |= SUMMED
            total = payload_sum(payload, size)
        if context.inherited_delay:
            flags |= delay_flags(context.inherited_delay)
        group, sequence, op, dtype, tag, codec = key
        return encode(
            kind, op, codec, dtype, flags, block, tag, context.run, context.generation, group, sequence, context.step,
            size, context.control, context.compute_seconds, total,
        )  # fmt: skip

    def send(self, peers: Iterable[int], header: bytes, payload: Payload, what: object) -> None:
        """Send one frame to each of `peers`; while it does not go, frames that come are stashed."""
        size = HEADER + size_of(payload)
        unsent: set[int] | None = None
        for peer in peers:
            link = self.links[peer]
            assert link is not None
            if link.outbox:  # of an earlier send, ended by another peer's loss, or one that was started
                Pump(self, what, {peer}, nothing_more, {}).run()
            number = link.next_number  # `Link.numbered`, without a call
            link.next_number = number + 1 & 0xFFFFFFFF
            whole = numbered(header, number)
            try:
                sent = link.send(whole, payload)
            except LinkClosed:
                raise self.lose(peer, what) from None
            if sent != size:
                link.load(whole, payload)
                link.trim(sent)
                unsent = {peer} if unsent is None else unsent | {peer}
        if unsent is not None:
            Pump(self, what, unsent, nothing_more, {}).run()

    def start(self, peer: int, header: bytes, payload: Payload, what: object) -> Frame:
        """Send what goes of a frame without waiting; the rest goes while others are waited for, or by `finish`."""
        frame, link = Frame(header, payload), self.link(peer)
        try:
            link.post(frame)
        except LinkClosed:
            raise self.lose(peer, what) from None
        if not frame.gone:
            self.unsent.add(peer)
        return frame

    def finish(self, what: object, until: Callable[[], bool] | None = None) -> None:
        """Send all that was started, until ``until()`` at most; what comes meanwhile is stashed."""
        self.unsent = {peer for peer in self.unsent if self.link(peer).outbox}
        if self.unsent:
            try:
                Pump(self, what, set(self.unsent), nothing_more, {}, until=until).run()
            finally:
                self.unsent = {peer for peer in self.unsent if self.link(peer).outbox}

    def flush(self, what: object) -> None:
        """Send what goes of what was started, without waiting."""
        for peer in sorted(self.unsent):
            try:
                if self.link(peer).flush():
                    self.unsent.discard(peer)
            except LinkClosed:
                raise self.lose(peer, what) from None

    # --- a collective's frames ------------------------------------------------------------------------------------

    def send_receive(
        self, peers: Sequence[int], key: Key, payload: Payload, role: int = 0, size: int = ANY
    ) -> list[memoryview]:
        """Send a small payload to all `peers`, return theirs: views that are valid until the links are read again."""
        self.send(peers, self.header(key, payload, role), payload, key)
        return self.collect(peers, key, role, size)

    def collect(self, peers: Sequence[int], key: Key, role: int = 0, size: int = ANY) -> list[memoryview]:
        """Return the small payloads of all `peers`, each of `size` bytes: views that are valid until the links are read again."""
        if self.unsent:
            self.send_started(peers, key)
        if len(peers) > 1:
            self.await_headers(peers, key)
        found = []
        for peer in peers:
            header = self.await_header(peer, key)
            if header.flags & ROLE != role or header.length != size != ANY:
                raise self._not_due(peer, header, role, size)
            found.append(self.read_payload(peer, key))
        return found

    def take_small(self, peer: int, header: Header, key: Key, role: int, size: int) -> memoryview:
        """Take the small payload in front, of `size` bytes: a view that is valid until the next read."""
        if header.flags & ROLE != role or header.length != size != ANY:
            raise self._not_due(peer, header, role, size)
        return self.read_payload(peer, key)

    def _not_due(self, peer: int, header: Header, role: int, size: int) -> CommError:
        if header.flags & ROLE != role:
            self.link(peer).check(header, role, header.block)
        return self.context.other_length(peer, header.length, size)

    def send_started(self, peers: Iterable[int], key: Key) -> None:
        """Send what was started until the collective's frames from `peers` are here: who is to come may wait for that."""
        start = _now()
        self.finish(key, lambda: all(self.next_header(peer, key, key) is not None for peer in peers))
        self.blocked += _now() - start

    def read_payload(self, peer: int, what: object, target: memoryview | None = None) -> memoryview:
        """Take the payload in front: into `target`, or if small as a view that is valid until the next read."""
        link = self.links[peer]
        assert link is not None
        try:
            while True:
                if target is not None:
                    if link.read_into(target, True):
                        return target
                elif (view := link.read_small(True)) is not None:
                    return view
                self.context.stalled(peer, what, self.context.timeout)
        except LinkClosed:
            raise self.lose(peer, what) from None

    def await_header(self, peer: int, key: Key) -> Header:
        """Wait for the header of the collective's next frame from `peer`."""
        link = self.links[peer]
        assert link is not None
        try:
            while True:
                if link.inbox and link.replay(key.group):
                    self._stashed -= 1
                header = self._await_any(link, key)
                if link.partial is None and key.fits(header, peer, self.context):
                    return header
                self.stash(link, True, key)
        except LinkClosed:
            raise self.lose(peer, key) from None

    def await_headers(self, peers: Sequence[int], key: Key) -> None:
        """Wait until the headers of the collective's next frames from all `peers` are here."""
        waiting: Sequence[int] = peers
        for _ in range(max(1, LOOKS // max(1, len(peers)))):
            waiting = [peer for peer in waiting if self.next_header(peer, key, key) is None]
        while len(waiting) > 1:  # not one after the other: the death of any of them must show at once
            seconds, ready = self.wait(waiting, (), key)
            self.blocked += seconds
            self.blocker = ready[-1]
            headers = {peer: self.next_header(peer, key, key) for peer in ready}
            waiting = [peer for peer in waiting if headers.get(peer) is None]
            for header in headers.values():
                if header is not None:
                    self.exclude_delay(header, seconds)
        for peer in waiting:
            self.await_header(peer, key)

    def _await_any(self, link: Link, what: object, forever: bool = False, looks: int = LOOKS) -> Header:
        start = _now()
        for _ in range(looks):
            header = link.peek()
            if header is not None:
                return header
        while (header := link.peek(True)) is None:
            if forever:
                self.context.check()
            else:
                self.context.stalled(link.peer, what, _now() - start)
        seconds = _now() - start
        self.blocked += seconds
        self.blocker = link.peer
        if header.flags >= DELAYED:
            self.exclude_delay(header, seconds)
        return header

    # --- messages -------------------------------------------------------------------------------------------------

    def message(self, peers: Sequence[int], group: int, tag: int, what: object) -> Found:
        """Wait for the next message for (`group`, `tag`) from any of `peers`."""
        if self.unsent:
            start = _now()
            self.finish(what, lambda: self._in_inbox(peers, group, tag) is not None)
            self.blocked += _now() - start
        if len(peers) == 1 and not self._stashed:
            link = self.link(peers[0])
            try:
                # One look: whoever answers has to work on it first, perhaps on this very core.
                first = self._await_any(link, what, looks=1)
                if link.partial is None and self._is_message(first, group, tag):
                    return peers[0], first, None
            except LinkClosed:
                raise self.lose(peers[0], what) from None
        start = _now()
        while (found := self.find(peers, group, tag, what)) is None:
            alive = [peer for peer in peers if peer not in self.lost]
            if not alive:
                raise self.context.lost(peers[0], what)
            begin = _now()
            self._ready = self._poll(alive, self.context.timeout * 1e3)
            self.blocked += _now() - begin
            if not self._ready:
                self.context.stalled(alive[0] if len(alive) == 1 else ANY, what, _now() - start)
        self.blocker = found[0]
        self.exclude_delay(found[1], self.blocked)
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
            if self._stashed and (found := self._in_inbox(peers, group, tag)) is not None:
                return found
            stashed, polled = self._stashed, not queue
            for position, peer in enumerate(queue := queue or self._poll(peers, patience)):
                if peer in peers and peer not in self.lost:
                    header = self._look(peer, group, tag, what)
                    if header is not None:
                        self._ready = queue[position:]
                        return peer, header, None
            self._ready = queue = []
            if polled and self._stashed == stashed:
                return None

    def stash_next(self, peer: int, what: object, forever: bool = False) -> None:
        """Stash one more frame from `peer`, whatever it is."""
        link = self.link(peer)
        try:
            self._await_any(link, what, forever)
            self.stash(link, True, what)
        except LinkClosed:
            raise self.lose(peer, what) from None

    def _in_inbox(self, peers: Sequence[int], group: int, tag: int) -> Found | None:
        for peer in peers:
            for header, payload in self.link(peer).inbox:
                if self._is_message(header, group, tag):
                    return peer, header, payload
        return None

    def _look(self, peer: int, group: int, tag: int, what: object) -> Header | None:
        link = self.link(peer)
        try:
            while (header := link.peek()) is not None:
                wanted = self._is_message(header, group, tag)
                if wanted and link.partial is None:
                    return header
                if not self.stash(link, False, what) or wanted:
                    return None  # if wanted, it is in the inbox now: what follows it must not overtake it
        except LinkClosed:
            raise self.lose(peer, what) from None
        return None

    def _is_message(self, header: Header, group: int, tag: int) -> bool:
        if header.control > self.context.control:
            self.context.raise_control(header.control)
        return header.kind == MESSAGE and header.group == group and header.tag == tag

    def _poll(self, peers: Sequence[int], milliseconds: float) -> list[int]:
        alive = [peer for peer in peers if peer not in self.lost]
        here = [peer for peer in alive if self.link(peer).buffered]
        every = len(peers) + 1 == len(self.links)
        found = self._poller.readable(alive, 0 if here else milliseconds, every)
        return here + [peer for peer in found if peer not in here]
