"""The table of segments: all shared memory that one rank has made or opened, and the locks that guard it."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import NamedTuple, final

from scaleml.arrays import Array
from scaleml.comm.errors import CorruptFrame
from scaleml.comm.transport.context import RankContext
from scaleml.comm.transport.file_lock import FileLock
from scaleml.comm.transport.segment import Segment


class SharedSegment(NamedTuple):
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
class SegmentTable:
    """One rank's shared memory.

    Parameters
    ----------
    context : RankContext
    scratch : str, optional
        A folder for segments where ``/dev/shm`` has no room.

    Attributes
    ----------
    shared : list of SharedSegment
        Ours that peers have opened.
    theirs : dict
        Those of peers, by (peer, number).
    """

    def __init__(self, context: RankContext, scratch: str | None) -> None:
        self.shared: list[SharedSegment] = []
        self.theirs: dict[tuple[int, int], Segment] = {}
        self._context = context
        self._scratch = scratch
        self._named: set[Segment] = set()  # ours that not all have opened yet
        self._locks: list[FileLock] = []
        self._numbers = 0
        self._lock = threading.Lock()

    def next_number(self) -> int:
        """Return a number for a new segment of ours."""
        with self._lock:
            self._numbers += 1
            return self._numbers

    def create(self, nbytes: int) -> Segment | None:
        """Make a segment, to be unlinked once all have opened it; None where there is no room."""
        segment = Segment.create(nbytes, self._scratch)
        if segment is not None:
            self._named.add(segment)
        return segment

    def unlink(self, segment: Segment) -> None:
        """Take the segment's name away."""
        segment.unlink()
        self._named.discard(segment)

    def lock(self, path: str) -> FileLock:
        """Open a lock; raises OSError where there is none."""
        lock = FileLock(self._context, path)
        self._locks.append(lock)
        return lock

    def locate(self, x: Array, peers: Iterable[int]) -> Place | None:
        """Return where `x` lies in a segment of ours that all of `peers` have opened; None if in none."""
        for shared in self.shared:
            offset = shared.segment.offset(x)
            if offset is not None and shared.peers.issuperset(peers):
                return Place(shared.segment, shared.number, offset)
        return None

    def misled(self, peer: int, why: str) -> CorruptFrame:
        """Return the error for a doorbell that leads nowhere."""
        rank, step = self._context.rank, self._context.step
        return CorruptFrame(
            f"rank {rank} got a corrupt frame from rank {peer}: a doorbell that leads nowhere, at step {step} ({why})",
            rank=rank, peer=peer, step=step,
        )  # fmt: skip

    def close(self) -> None:
        """Let go of all of it; nobody may use the locks any more."""
        for lock in self._locks:
            lock.close()
        self._locks.clear()
        for segment in self._named:
            segment.unlink()
        self._named.clear()
        self.shared.clear()
        self.theirs.clear()
