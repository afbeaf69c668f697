"""The memory of one group: what it shares on its host, and scratch."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, final

import numpy as np
from numpy.typing import DTypeLike

from scaleml.arrays import aligned

from .lock import Lock
from .mesh import Mesh, Place, Shared
from .segment import Segment

if TYPE_CHECKING:
    from .group import Group

_OFFER = struct.Struct("<?Q")  # whether all is well so far, the segment's number; the path follows
_PLACE = struct.Struct("<QQQ")  # segment, byte offset, bytes; the path follows where the segment is new


@final
class Memory:
    """Segments of ours and of our peers.

    Parameters
    ----------
    peers : tuple of int
        The other ranks of the group.
    """

    def __init__(self, mesh: Mesh, peers: tuple[int, ...]) -> None:
        self._mesh = mesh
        self._peers = peers
        self._stage: Place | None = None
        self._no_room = 1 << 62  # bytes for which no segment could be made
        self._their_stages: dict[int, int] = {}
        self._scratch: dict[tuple[str, np.dtype[Any]], np.ndarray] = {}

    def buffer(self, group: Group, n: int, dtype: np.dtype[Any]) -> np.ndarray:
        """`Group.buffer`."""
        mesh = self._mesh
        sharers = [peer for peer in self._peers if mesh.hosts[mesh.rank][peer]]
        number = mesh.number()
        segment = self._create(n * dtype.itemsize) if n and sharers else None
        fine = segment is not None or not n or not sharers
        offers = group.allgather_bytes(_OFFER.pack(fine, number) + (segment.path.encode() if segment else b""))
        opened: dict[tuple[int, int], Segment] = {}
        for root, offer in zip(group.ranks, offers, strict=True):
            theirs_fine, their_number = _OFFER.unpack_from(offer)
            fine = fine and theirs_fine
            if fine and root in sharers and len(offer) > _OFFER.size:
                try:
                    opened[root, their_number] = Segment.open(offer[_OFFER.size :].decode())
                except OSError:
                    fine = False
        fine = all(reply == b"\1" for reply in group.allgather_bytes(b"\1" if fine else b"\0"))
        if segment is not None:
            self._unlink(segment)
        if fine:
            mesh.theirs.update(opened)
        if segment is None or not fine:
            return _zeros(n, dtype)
        mesh.segments.append(Shared(segment, number, frozenset(sharers)))
        return segment.array(dtype, n)

    def common(self, group: Group, nbytes: int, locked: bool = False) -> tuple[Segment, Lock | None] | None:
        """One segment that all of the group map, and a lock of it; None, on all ranks, where they cannot."""
        segment = None
        if group.one_host and group.rank == 0:
            segment = self._create(nbytes)
        offer = group.allgather_bytes(segment.path.encode() if segment else b"")[0]
        mapped, lock = segment, None
        if offer:
            try:
                mapped = mapped or Segment.open(offer.decode())
                lock = Lock(self._mesh, offer.decode()) if locked else None
            except OSError:
                mapped = None
        fine = all(reply == b"\1" for reply in group.allgather_bytes(b"\1" if mapped else b"\0"))
        if segment is not None:
            self._unlink(segment)
        return (mapped, lock) if fine and mapped is not None else None

    def place(self, x: np.ndarray) -> Place | None:
        """Where all peers can read `x`, which is copied into the stage if need be; None if there is no room."""
        found = self._mesh.locate(x, self._peers)
        if found is not None:
            return found
        if self._stage is None or self._stage.segment.nbytes < x.nbytes:
            segment = self._create(1 << (x.nbytes - 1).bit_length()) if x.nbytes < self._no_room else None
            if segment is None:
                self._no_room = min(self._no_room, x.nbytes)
                return None
            if self._stage is not None:
                self._unlink(self._stage.segment)
            self._stage = Place(segment, self._mesh.number(), 0)
        self._stage.segment.array(x.dtype, x.size)[:] = x
        return self._stage

    def opened(self) -> None:
        """All peers have opened the stage: it needs its name no more."""
        if self._stage is not None and self._stage.segment.named:
            self._unlink(self._stage.segment)

    def doorbell(self, place: Place, nbytes: int) -> bytes:
        """What a peer is told so that it finds data of ours."""
        segment = place.segment
        return _PLACE.pack(place.number, place.offset, nbytes) + (segment.path.encode() if segment.named else b"")

    def answer(self, peer: int, doorbell: bytes | memoryview, dtype: np.dtype[Any]) -> np.ndarray | None:
        """The data of `peer` that a doorbell is about; None for an empty one."""
        if not doorbell:
            return None
        number, offset, nbytes = _PLACE.unpack_from(doorbell)
        theirs = self._mesh.theirs
        if (peer, number) not in theirs:  # its new stage
            theirs.pop((peer, self._their_stages.get(peer, 0)), None)
            theirs[peer, number] = Segment.open(bytes(doorbell[_PLACE.size :]).decode())
            self._their_stages[peer] = number
        return theirs[peer, number].array(dtype, nbytes // dtype.itemsize, offset)

    def scratch(self, name: str, dtype: np.dtype[Any], size: int) -> np.ndarray:
        """Memory of this size, not shared, kept between calls."""
        room = self._scratch.get((name, dtype))
        if room is None or room.size < size:
            room = self._scratch[name, dtype] = np.empty(size, dtype)
        return room[:size]

    def clear(self) -> None:
        """Let go of everything."""
        self._stage = None
        self._scratch.clear()

    def _create(self, nbytes: int) -> Segment | None:
        segment = Segment.create(nbytes, self._mesh.scratch)
        if segment is not None:
            self._mesh.named.add(segment)
        return segment

    def _unlink(self, segment: Segment) -> None:
        segment.unlink()
        self._mesh.named.discard(segment)


def shared_vector(group: Group, n: int, dtype: DTypeLike = np.float32) -> np.ndarray | None:
    """Return `n` zeros (more than none) that all ranks of a group read and write in the same memory; collective.

    Nothing orders what several ranks read and write there at one time but the processor, which writes aligned items of up to
    8 bytes whole. None, on all ranks, where they do not share one host's memory.

    Examples
    --------
    >>> from scaleml.comm import inprocess
    >>> def total(group):
    ...     w = shared_vector(group, group.size)
    ...     w[group.rank] = group.rank + 1
    ...     group.barrier()
    ...     return float(w.sum())
    >>> inprocess.run(3, total)
    [6.0, 6.0, 6.0]
    """
    if group.size == 1:
        return _zeros(n, dtype)
    dtype = np.dtype(dtype)
    found = group.memory.common(group, n * dtype.itemsize)
    return None if found is None else found[0].array(dtype, n)


def locked_memory(group: Group, nbytes: int) -> tuple[np.ndarray, Lock] | None:
    """Return so many zero bytes (more than none) that all ranks of a group map, and a lock for writing there; collective.

    None, on all ranks, where they do not share one host's memory.

    Examples
    --------
    >>> from scaleml.comm import inprocess
    >>> def total(group):
    ...     memory, lock = locked_memory(group, 1)
    ...     _ = lock.acquire(holder=lambda: 0)
    ...     memory[0] += group.rank
    ...     lock.release()
    ...     group.barrier()
    ...     return int(memory[0])
    >>> inprocess.run(3, total)
    [3, 3, 3]
    """
    found = group.memory.common(group, nbytes, locked=True)
    if found is None or found[1] is None:
        return None
    return found[0].array(np.uint8, nbytes), found[1]


def _zeros(n: int, dtype: DTypeLike) -> np.ndarray:
    zeros: np.ndarray = aligned(np, (n,), dtype)
    zeros[:] = 0
    return zeros
