"""The shared memory of one communicator: buffers, the stage for vectors that lie elsewhere, and scratch."""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable
from typing import Any, final

import numpy as np

from scaleml.arrays import Array, aligned
from scaleml.comm.transport.file_lock import FileLock
from scaleml.comm.transport.segment import Segment
from scaleml.comm.transport.segment_table import Place, SegmentTable, SharedSegment

Gather = Callable[[bytes], list[bytes]]
"""The collective ``allgather_bytes`` of the communicator whose memory it is."""

_OFFER = struct.Struct("<?Q")  # whether all is well so far, the segment's number; the path follows
_PLACE = struct.Struct("<QQQ")  # segment, byte offset, bytes; the path follows where the segment is new


_OURS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""What keeps this process from opening a segment that is there."""


@final
class Memory:
    """Segments of ours and of our peers.

    Parameters
    ----------
    table : SegmentTable
        All that this rank has.
    ranks, peers : tuple of int
        The communicator's ranks by their root numbers, and the others among them.
    sharers : frozenset of int
        The peers on this rank's host.
    """

    def __init__(
        self, table: SegmentTable, ranks: tuple[int, ...], peers: tuple[int, ...], sharers: frozenset[int]
    ) -> None:
        self._table = table
        self._ranks = ranks
        self._peers = peers
        self._sharers = sharers
        self._stage: Place | None = None
        self._no_room = 1 << 62  # bytes for which no segment could be made
        self._their_stages: dict[int, int] = {}
        self._scratch: dict[tuple[str, np.dtype[Any]], Array] = {}

    def buffer(self, gather: Gather, n: int, dtype: np.dtype[Any]) -> Array:
        """Return `n` zeros that the ranks of one host share; collective."""
        table, sharers = self._table, self._sharers
        number = table.next_number()
        segment = table.create(n * dtype.itemsize) if n and sharers else None
        fine = segment is not None or not n or not sharers
        offers = gather(_OFFER.pack(fine, number) + (segment.path.encode() if segment else b""))
        opened: dict[tuple[int, int], Segment] = {}
        for root, offer in zip(self._ranks, offers, strict=True):
            theirs_fine, their_number = _OFFER.unpack_from(offer)
            fine = fine and theirs_fine
            if fine and root in sharers and len(offer) > _OFFER.size:
                try:
                    opened[root, their_number] = Segment.open(offer[_OFFER.size :].decode())
                except OSError:
                    fine = False
        fine = all(reply == b"\1" for reply in gather(b"\1" if fine else b"\0"))
        if segment is not None:
            table.unlink(segment)
        if fine:
            table.theirs.update(opened)
        if segment is None or not fine:
            return zeros(n, dtype)
        table.shared.append(SharedSegment(segment, number, sharers))
        return segment.array(dtype, n)

    def common(self, gather: Gather, nbytes: int, locked: bool = False) -> tuple[Segment, FileLock | None] | None:
        """Return one segment that all ranks map, and a lock of it; collective. None, on all ranks, where they cannot."""
        segment = None
        first = self._ranks[0] not in self._peers
        if first and len(self._sharers) == len(self._peers):
            segment = self._table.create(nbytes)
        offer = gather(segment.path.encode() if segment else b"")[0]
        mapped, lock = segment, None
        if offer:
            try:
                mapped = mapped or Segment.open(offer.decode())
                lock = self._table.lock(offer.decode()) if locked else None
            except OSError:
                mapped = None
        fine = all(reply == b"\1" for reply in gather(b"\1" if mapped else b"\0"))
        if segment is not None:
            self._table.unlink(segment)
        return (mapped, lock) if fine and mapped is not None else None

    def locate(self, x: Array, peers: tuple[int, ...]) -> Place | None:
        """Return where `x` lies in a buffer of ours that all of `peers` have opened; None if in none."""
        return self._table.locate(x, peers)

    def place(self, x: Array) -> Place | None:
        """Return where all peers can read `x`, which is copied into the stage if need be; None if there is no room."""
        found = self._table.locate(x, self._peers)
        if found is not None:
            return found
        if self._stage is None or self._stage.segment.nbytes < x.nbytes:
            segment = self._table.create(1 << (x.nbytes - 1).bit_length()) if x.nbytes < self._no_room else None
            if segment is None:
                self._no_room = min(self._no_room, x.nbytes)
                return None
            if self._stage is not None:
                self._table.unlink(self._stage.segment)
            self._stage = Place(segment, self._table.next_number(), 0)
        self._stage.segment.array(x.dtype, x.size)[:] = x
        return self._stage

    def stage_was_opened(self) -> None:
        """Take the stage's name away: all peers have opened it."""
        if self._stage is not None and self._stage.segment.named:
            self._table.unlink(self._stage.segment)

    def doorbell(self, place: Place, nbytes: int) -> bytes:
        """Return what a peer is told so that it finds data of ours."""
        segment = place.segment
        return _PLACE.pack(place.number, place.offset, nbytes) + (segment.path.encode() if segment.named else b"")

    def answer(
        self, peer: int, doorbell: bytes | memoryview, dtype: np.dtype[Any], items: int | None = None
    ) -> Array | None:
        """Return the data of `peer` that a doorbell is about, of so many items where that is known; None for an empty one.

        Raises
        ------
        CorruptFrame
            If there is nothing of that kind where it says.
        """
        if not doorbell:
            return None
        try:
            number, offset, nbytes = _PLACE.unpack_from(doorbell)
            count = nbytes // dtype.itemsize
            if offset % dtype.itemsize or nbytes % dtype.itemsize or (items is not None and count != items):
                raise ValueError(f"{nbytes} bytes from byte {offset} on are not what was due")
            return self._theirs(peer, number, doorbell).array(dtype, count, offset)
        except (struct.error, OSError, ValueError, OverflowError) as error:
            if isinstance(error, OSError) and error.errno in _OURS:
                raise
            raise self._table.misled(peer, str(error)) from error

    def _theirs(self, peer: int, number: int, doorbell: bytes | memoryview) -> Segment:
        theirs = self._table.theirs
        if (peer, number) not in theirs:  # its new stage
            opened = Segment.open(bytes(doorbell[_PLACE.size :]).decode())
            theirs.pop((peer, self._their_stages.get(peer, 0)), None)
            theirs[peer, number] = opened
            self._their_stages[peer] = number
        return theirs[peer, number]

    def scratch(self, name: str, dtype: np.dtype[Any], size: int) -> Array:
        """Return memory of this size, not shared, kept between calls."""
        room = self._scratch.get((name, dtype))
        if room is None or room.size < size:
            room = self._scratch[name, dtype] = np.empty(size, dtype)
        return room[:size]

    def clear(self) -> None:
        """Let go of everything."""
        self._stage = None
        self._scratch.clear()


def zeros(n: int, dtype: np.dtype[Any]) -> Array:
    """Return `n` zeros that nobody shares."""
    room = aligned(np, (n,), dtype)
    room[:] = 0
    return room
