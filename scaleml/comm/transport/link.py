"""A link to one peer: frames out of a connected socket, frames in, nothing else.

A link belongs to one thread at a time; only `wake` may be called by others. Reading goes through a small buffer, so that
one system call brings a small frame's header and payload at once; large payloads go straight to where they are wanted.
"""

from __future__ import annotations

import socket
from abc import ABC, abstractmethod
from collections import deque

import numpy as np

from scaleml.comm.conventions import INLINE
from scaleml.comm.errors import CorruptFrame
from scaleml.comm.meter import Meter
from scaleml.comm.transport.frame import (
    COLLECTIVE,
    HEADER,
    ROLE,
    ROLES,
    SUMMED,
    Frame,
    Header,
    Payload,
    decode,
    first_number,
    next_number,
    numbered,
)
from scaleml.comm.transport.payload_sum import SHORT, TABLE, payload_sum, table_sum
from scaleml.comm.transport.sockets import memory_of_host, wake

_BUFFER = 2 * (INLINE + HEADER)
MOST = memory_of_host()
"""Bytes that no payload can have more of."""


class LinkClosed(Exception):
    """The other end is gone (the caller knows whether that is a loss or our own abort)."""


class Link(ABC):
    """A socket to rank `peer`, as seen by rank `rank`."""

    sums: bool  # whether payloads carry a checksum

    def __init__(self, sock: socket.socket, rank: int, peer: int, run: int, generation: int) -> None:
        self.sock = sock
        self.rank = rank
        self.peer = peer
        self.inbox: deque[tuple[Header, Payload]] = deque()  # frames read while looking for another one
        self.outbox: list[memoryview] = []  # what is left of the frame being sent
        self.greedy = True  # reads what there is; not so where large payloads follow, which would be copied once more
        self.meter = Meter(1)  # replaced by the channel's
        self.backlog: deque[Frame] = deque()  # frames that were started
        self._posted = False  # whether the outbox holds the backlog's first
        self.partial: memoryview | None = None  # the frame in front is being read into it, for the inbox
        self._replay: tuple[Header, Payload] | None = None  # a frame from the inbox, in front again
        self._run, self._generation = run, generation
        self.next_number = first_number(rank)  # of the frame that is sent next, ...
        self._due = first_number(peer)  # ... and of the one that comes next
        # Not filled with zeros: of a link among many, hardly used, nothing is touched.
        self._view = np.empty(_BUFFER, np.uint8).data
        self._low = self._high = 0
        self._header: Header | None = None
        self._got = self._summed = self._sum = 0  # of the payload being read by `read_into`

    # --- to be provided -------------------------------------------------------------------------------------------

    @abstractmethod
    def receive(self, view: memoryview, block: bool) -> int:
        """Read some bytes into `view` (not empty); 0 if there are none (with `block`: for the whole timeout)."""

    @abstractmethod
    def send(self, header: bytes | memoryview, payload: Payload) -> int:
        """Send what goes without waiting; return how many bytes went."""

    @abstractmethod
    def pending(self) -> bool:
        """Whether the socket itself holds bytes that were already taken from the kernel."""

    @abstractmethod
    def write(self, data: bytes) -> None:
        """Send all of `data`, also while another thread reads; waits, but not longer than the link lives."""

    @abstractmethod
    def set_timeout(self, timeout: float) -> None:
        """Have `receive` with `block` return after so many seconds without a byte."""

    def spoil(self) -> bool:
        """Alter what goes next below this link's own checks; False if there is nothing below."""
        return False

    # --- sending --------------------------------------------------------------------------------------------------

    def numbered(self, header: bytes) -> bytes:
        """Return the whole header of the frame that goes next."""
        number = self.next_number
        self.next_number = next_number(number)
        return numbered(header, number)

    def load(self, header: bytes, payload: Payload) -> None:
        """Make a frame, which has its number, the one to be sent by `flush`."""
        self.outbox = [memoryview(header)]
        if len(payload):
            self.outbox.append(memoryview(payload).cast("B"))

    def trim(self, sent: int) -> None:
        """Forget the first `sent` bytes of the frame being sent."""
        while self.outbox and sent >= len(self.outbox[0]):
            sent -= len(self.outbox.pop(0))
        if sent:
            self.outbox[0] = self.outbox[0][sent:]

    def post(self, frame: Frame) -> None:
        """Send what goes of a frame without waiting; the rest goes with later flushes, after what was posted before."""
        self.backlog.append(frame)
        if not self.outbox:
            self.flush()

    def flush(self) -> bool:
        """Send what goes without waiting; True once nothing is left of the frame, and of those that were posted."""
        while self.outbox or self.backlog:
            if self.outbox:
                first, *rest = self.outbox
                self.trim(self.send(first, rest[0] if rest else b""))
                if self.outbox:
                    return False
            if self._posted:
                self.backlog.popleft().gone = True
            self._posted = bool(self.backlog)
            if self._posted:
                self.load(self.numbered(self.backlog[0].header), self.backlog[0].payload)
        return True

    # --- receiving ------------------------------------------------------------------------------------------------

    @property
    def buffered(self) -> bool:
        """Whether bytes are here that `select.poll` cannot see."""
        if self.partial is None and (self._header is not None or self._high - self._low >= HEADER):
            return True
        return self.pending()

    def peek(self, block: bool = False) -> Header | None:
        """Return the header of the frame in front, None if it is not here; it stays in front until its body is taken.

        Raises
        ------
        CorruptFrame
            If it is altered, of another run or generation, or not the one that is due.
        """
        if self._replay is not None:
            return self._replay[0]
        if self._header is None:
            while self._high - self._low < HEADER:
                if not self._fill(HEADER, block):
                    return None
            try:
                header = decode(self._view, self._low)
            except ValueError as error:
                raise self.corrupt(str(error), -1) from None
            if header.number != self._due or header.generation != self._generation or header.run != self._run:
                raise self.corrupt(self._strange(header), header.step)
            self._due = self._due + 1 & 0xFFFFFFFF  # `next_number`, without a call
            self._low += HEADER
            self._header = header
        return self._header

    def read_small(self, block: bool = False) -> memoryview | None:
        """Take a payload of at most `INLINE` bytes: a view that is valid until the next read; None if it is not here."""
        if self._replay is not None:
            payload, self._replay = self._replay[1], None
            return memoryview(payload)
        header = self._header
        assert header is not None
        if header.length > INLINE:
            raise self.corrupt(f"its payload of {header.length} bytes is no small one", header.step)
        while self._high - self._low < header.length:
            if not self._fill(header.length, block):
                return None
        view = self._view[self._low : self._low + header.length]
        if header.flags & SUMMED and payload_sum(view, header.length) != header.checksum:
            raise self.corrupt("its payload does not match its sum", header.step)
        self._low += header.length
        self._take(header)
        return view

    def read_into(self, target: memoryview, block: bool = False) -> bool:
        """Go on reading the payload into `target` (all of its bytes); True once it is complete and its sum right."""
        if self._replay is not None:
            target[:] = self._replay[1]
            self._replay = None
            return True
        header = self._header
        assert header is not None
        if header.length != len(target):
            raise self.corrupt(f"its payload has {header.length} bytes, not {len(target)}", header.step)
        while self._got < header.length:
            ready = min(self._high - self._low, header.length - self._got)
            if ready:
                target[self._got : self._got + ready] = self._view[self._low : self._low + ready]
                self._low += ready
            else:
                ready = self.receive(target[self._got :], block)
                if not ready:
                    return False
            self._got += ready
            if header.flags & SUMMED:
                self._sum_up(target, header.length)
        if header.flags & SUMMED and self._sum != header.checksum:
            raise self.corrupt("its payload does not match its sum", header.step)
        self._got = self._summed = self._sum = 0
        self._take(header)
        return True

    def room(self, header: Header) -> memoryview:
        """Return memory for the payload in front, which only its header knows: what is not there yet takes none.

        Raises
        ------
        CorruptFrame
            If there can be no payload as long as it is said to be.
        """
        try:
            if header.length <= MOST:
                return np.empty(header.length, np.uint8).data  # not filled with zeros: pages come with the bytes
        except MemoryError:
            pass
        raise self.corrupt(f"it announces {header.length} bytes, and this host has memory for {MOST}", header.step)

    def check(self, header: Header, role: int, block: int = 0) -> None:
        """Raise `CorruptFrame` if the frame in front is not that part of its collective which comes now."""
        if header.flags & ROLE != role or header.block != block:
            came, due = ((ROLES[flags & ROLE], index) for flags, index in ((header.flags, header.block), (role, block)))
            raise self.corrupt(f"it has {came[0]} {came[1]}, and {due[0]} {due[1]} was due", header.step)

    def replay(self, group: int) -> bool:
        """Put the group's next collective frame from the inbox in front again; False if there is none."""
        if self.partial is not None or self._replay is not None:
            return False
        for position, (header, _) in enumerate(self.inbox):
            if header.kind == COLLECTIVE and header.group == group:
                self._replay = self.inbox[position]
                del self.inbox[position]
                return True
        return False

    def _take(self, header: Header) -> None:
        # Frames count when they are taken: what was read ahead may be of the next interval, or of training that has not begun.
        self._header = None
        self.meter.bytes_received += HEADER + header.length

    def _sum_up(self, target: memoryview, length: int) -> None:
        if length <= SHORT:
            if self._got == length:
                self._sum = payload_sum(target, length)
            return
        while self._got - self._summed >= TABLE or self._got == length > self._summed:
            end = min(self._summed + TABLE, length)
            self._sum = table_sum(target[self._summed : end], self._sum)
            self._summed = end

    def _fill(self, need: int, block: bool) -> int:
        if self._low == self._high:
            self._low = self._high = 0
        elif self._low + need > _BUFFER:
            kept = self._high - self._low
            self._view[:kept] = bytes(self._view[self._low : self._high])
            self._low, self._high = 0, kept
        got = self.receive(self._view[self._high : _BUFFER if self.greedy else self._low + need], block)
        self._high += got
        return got

    def _strange(self, header: Header) -> str:
        if header.run != self._run or header.generation != self._generation:
            return (
                f"it belongs to run {header.run:x} generation {header.generation}, "
                f"this is run {self._run:x} generation {self._generation}"
            )
        first = first_number(self.peer)
        came, due = ((number - first) % (1 << 32) for number in (header.number, self._due))
        which = f"it is number {came} on this link" if came < 1 << 31 else "it is of another link"
        return f"{which}, and number {due} was due: frames were lost, sent again or swapped on the way"

    def corrupt(self, why: str, step: int) -> CorruptFrame:
        """Return the error for what came over this link, in a frame of the peer's `step` (-1: unknown)."""
        at = f" at its step {step}" if step >= 0 else ""
        return CorruptFrame(
            f"rank {self.rank} got a corrupt frame from rank {self.peer}{at}: {why}",
            rank=self.rank, peer=self.peer, step=step,
        )  # fmt: skip

    # --- the end --------------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """From any thread: make whatever blocks on this link return."""
        wake(self.sock)

    def close(self) -> None:
        """Close the socket."""
        self.wake()
        self.sock.close()
