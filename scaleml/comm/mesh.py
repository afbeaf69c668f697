"""What all groups of one rank share: who it is, its links, its memory, and how its waits end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple, final

import numpy as np

from . import frame
from .errors import Aborted, CommError, PeerLost, PeerTimeout
from .meter import Meter
from .segment import Segment
from .wire import Wires

if TYPE_CHECKING:
    from .channel import Channel
    from .link import Link
    from .lock import Lock
    from .memory import Memory
    from .progress import Progress

OnStall = Callable[[int, int, str, float], bool]
"""Called as ``on_stall(peer, step, waiting_for, seconds)``; True: go on waiting."""


class Shared(NamedTuple):
    """A segment of ours, its number, and the peers that have opened it."""

    segment: Segment
    number: int
    peers: frozenset[int]


class Place(NamedTuple):
    """Where a vector lies in shared memory; `offset` in bytes."""

    segment: Segment
    number: int
    offset: int


@final
class Mesh:
    """One rank among `size`, and everything that its groups have in common."""

    def __init__(
        self,
        rank: int,
        size: int,
        run: int,
        generation: int,
        timeout: float,
        scratch: str | None,
    ) -> None:
        self.rank = rank
        self.size = size
        self.run = run
        self.generation = generation
        self.timeout = timeout
        self.on_stall: OnStall | None = None
        self.scratch = scratch
        self.step = 0
        self.compute_seconds = 0.0
        self.late = 0.0  # seconds that bad links held up this operation, and by which the next one's frames ...
        self.excuse = 0.0  # ... are late: they say so
        self.control = 0
        self.announcements: dict[int, bytes] = {}
        self.meter = Meter(size)
        self.hosts: list[list[bool]] = [[a == b for a in range(size)] for b in range(size)]  # which pairs share one
        self.segments: list[Shared] = []  # ours
        self.named: set[Segment] = set()  # ours that not all have opened yet
        self.theirs: dict[tuple[int, int], Segment] = {}  # by (peer, number)
        self.memories: list[Memory] = []  # of all groups
        self.locks: list[Lock] = []  # of what we share
        self.channel: Channel
        self.progress: Progress
        self.wires: Wires | None = None  # trouble on our links
        self.reason: str | None = None  # why we were aborted
        self.closed = False
        self._numbers = 0
        self._lock = threading.Lock()

    # --- frames ---------------------------------------------------------------------------------------------------

    def header(
        self,
        kind: int,
        group: int,
        sequence: int,
        op: int = 0,
        tag: int = 0,
        dtype: int = 0,
        flags: int = 0,
        block: int = 0,
        codec: int = 0,
        length: int = 0,
        checksum: int = 0,
    ) -> bytes:
        """Encode a header, stamped with this rank's step, control word and compute time."""
        if self.excuse:
            flags |= frame.holding(self.excuse)
        return frame.encode(
            kind, op, codec, dtype, flags, block, tag, self.run, self.generation, group, sequence, self.step, length,
            self.control, self.compute_seconds, checksum,
        )  # fmt: skip

    def heed(self, control: int) -> None:
        """Take over a higher control word."""
        with self._lock:  # two threads read frames when collectives run in the background
            self.control = max(self.control, control)

    def number(self) -> int:
        """A number for a new segment of ours."""
        with self._lock:
            self._numbers += 1
            return self._numbers

    def locate(self, x: np.ndarray, peers: Iterable[int]) -> Place | None:
        """Where `x` lies in a segment of ours that all of `peers` have opened."""
        for shared in self.segments:
            offset = shared.segment.offset(x)
            if offset is not None and shared.peers.issuperset(peers):
                return Place(shared.segment, shared.number, offset)
        return None

    def delayed(self, seconds: float) -> float:
        """Note that a bad link cost us so many seconds, for which our next frames come later; return them."""
        self.late = max(self.late, seconds)
        return seconds

    def trouble(self) -> Wires:
        """Our bad links, to be made worse."""
        if self.wires is None:
            self.wires = Wires(self)
        return self.wires

    # --- how waits end --------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Raise if this rank was aborted or closed."""
        if self.reason is not None:
            raise Aborted(
                f"rank {self.rank} was aborted at step {self.step}: {self.reason}", rank=self.rank, step=self.step
            )
        if self.closed:
            raise CommError(f"rank {self.rank}'s group is closed", rank=self.rank, step=self.step)

    def lost(self, peer: int, waiting_for: object) -> CommError:
        """The error for a link that was found closed (ours, if we were aborted)."""
        try:
            self.check()
        except CommError as error:
            return error
        return PeerLost(
            f"rank {self.rank} lost rank {peer} at step {self.step}, waiting for {waiting_for}: "
            f"its process died or left the group",
            rank=self.rank, peer=peer, step=self.step,
        )  # fmt: skip

    def stalled(self, peer: int, waiting_for: object, seconds: float) -> None:
        """Nothing came for `seconds`: ask whether to go on.

        Raises
        ------
        PeerTimeout
            If nobody wants to.
        """
        self.check()
        if self.on_stall is not None and self.on_stall(peer, self.step, str(waiting_for), seconds):
            return
        self.check()
        whom = f"rank {peer}" if peer >= 0 else "any rank"
        raise PeerTimeout(
            f"rank {self.rank} waited {seconds:.1f} s for {whom} at step {self.step}, for {waiting_for}: "
            f"nothing came within the timeout of {self.timeout:g} s",
            rank=self.rank, peer=peer, step=self.step,
        )  # fmt: skip

    def limit(self, timeout: float, on_stall: OnStall | None) -> None:
        """From now on, have every wait ask `on_stall` after `timeout` seconds."""
        self.timeout, self.on_stall = timeout, on_stall
        for link in self.links():
            link.limit(timeout)

    def links(self) -> list[Link]:
        """All links of this rank."""
        return [link for channel in (self.channel, self.progress.channel) for link in channel.links if link]

    def abort(self, reason: str) -> None:
        """From any thread: every call that talks, now or later, raises `Aborted`."""
        with self._lock:
            if self.reason is None:
                self.reason = reason
        if self.wires is not None:
            self.wires.stop()
        for link in self.links():
            link.wake()

    def close(self) -> None:
        """Close the links and forget the memory; can be called again."""
        with self._lock:
            if self.closed:
                return
            self.closed = True
        if self.wires is not None:
            self.wires.close(0.0 if self.reason is not None else self.timeout)
        for link in self.links():
            link.wake()
        self.progress.close()
        for link in self.links():
            link.close()
        for lock in self.locks:
            lock.close()
        self.locks.clear()
        for segment in self.named:
            segment.unlink()
        self.named.clear()
        self.segments.clear()
        for memory in self.memories:
            memory.clear()
        self.theirs.clear()
