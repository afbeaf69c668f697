"""The direct algorithms: everybody talks to everybody, and sums are always made in rank order.

Small vectors travel whole. Large ones between ranks of one host lie in shared memory, where every rank reduces its part
of all of them. Large ones elsewhere go in blocks to the owner of each part, and back from it. All three give the same
bits on every rank and every time.
"""

from __future__ import annotations

import struct
from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np

from .channel import Channel, Key, Sink
from .errors import CommError
from .frame import DOORBELL, RESULT, Header
from .link import INLINE

if TYPE_CHECKING:
    from .group import Group

CACHED = 128 * 1024
"""Bytes of one rank that are reduced at a time, so that the sum is still in cache when it is handed out."""

BLOCK = 256 * 1024
"""Bytes of a frame of a vector that goes through sockets."""

_PLACE = struct.Struct("<QQQ")  # segment, byte offset, bytes; the path follows where the segment is new


def bytes_of(x: np.ndarray) -> memoryview:
    """The bytes of a contiguous vector."""
    return memoryview(x).cast("B") if x.size else memoryview(b"")


def allreduce(group: Group, channel: Channel, x: np.ndarray, key: Key) -> None:
    """Sum `x` over the ranks, in place."""
    if x.nbytes <= INLINE:
        parts = _swap_small(group, channel, x, key)
        _sum_into(group, x, parts)
        return
    slots = _ring(group, channel, x, key) if group.one_host else None
    if slots is None:
        _through_sockets(group, channel, x, key, give_back=True)
        return
    start, stop = group.part(group.rank, x.size)
    mine = slots[group.rank]
    others = [slot for rank, slot in enumerate(slots) if rank != group.rank]
    step = CACHED // x.itemsize
    for low in range(start, stop, step):
        high = min(low + step, stop)
        block = mine[low:high]
        _sum_into(group, block, [slot[low:high] for slot in slots])
        for slot in others:
            slot[low:high] = block
    _done(group, channel, key)
    if not np.may_share_memory(mine, x):  # it was staged
        x[:] = mine
    _count_shared(channel, x.nbytes, (stop - start) * x.itemsize, group.size)


def reduce_scatter(group: Group, channel: Channel, x: np.ndarray, key: Key) -> None:
    """Sum this rank's part of `x` over the ranks, in place; the rest of `x` is undefined afterwards."""
    start, stop = group.part(group.rank, x.size)
    if x.nbytes <= INLINE:
        parts = _swap_small(group, channel, x, key)
        _sum_into(group, x[start:stop], [part[start:stop] for part in parts])
        return
    slots = _ring(group, channel, x, key) if group.one_host else None
    if slots is None:
        _through_sockets(group, channel, x, key, give_back=False)
        return
    _sum_into(group, x[start:stop], [slot[start:stop] for slot in slots])
    _done(group, channel, key)
    _count_shared(channel, x.nbytes, 0, group.size)


def allgather(group: Group, channel: Channel, x: np.ndarray, key: Key) -> np.ndarray:
    """Return every rank's `x` as rows."""
    out = np.empty((group.size, x.size), x.dtype)
    out[group.rank] = x
    if x.nbytes <= INLINE:
        for rank, part in enumerate(_swap_small(group, channel, x, key)):
            out[rank] = part
        return out
    slots = _ring(group, channel, x, key) if group.one_host else None
    if slots is not None:
        for rank, slot in enumerate(slots):
            if rank != group.rank:
                out[rank] = slot
        _done(group, channel, key)
        _count_shared(channel, x.nbytes * (group.size - 1), 0, 2)
        return out
    rows = {peer: bytes_of(out[rank]) for rank, peer in enumerate(group.ranks)}
    _swap_large(group, channel, x, key, group.peers, dict.fromkeys(group.peers, 1), lambda peer, header: rows[peer])
    return out


def broadcast(group: Group, channel: Channel, x: np.ndarray, root: int, key: Key) -> None:
    """Give `x` of rank `root` to all, in place."""
    source = group.ranks[root]
    if group.rank == root:
        _swap_large(group, channel, x, key, group.peers, {}, lambda peer, header: memoryview(b""))
    else:
        _swap_large(group, channel, x, key, (), {source: 1}, lambda peer, header: bytes_of(x))


def allgather_bytes(group: Group, channel: Channel, payload: bytes, key: Key) -> list[bytes]:
    """Return every rank's bytes, of any lengths."""
    found: dict[int, bytearray] = {}

    def place(peer: int, header: Header) -> memoryview:
        return memoryview(found.setdefault(peer, bytearray(header.length)))

    if group.peers:
        data = np.frombuffer(payload, np.uint8)
        _swap_large(group, channel, data, key, group.peers, dict.fromkeys(group.peers, 1), place)
    return [payload if rank == group.rank else bytes(found[peer]) for rank, peer in enumerate(group.ranks)]


# --- small ------------------------------------------------------------------------------------------------------------


def _swap_small(group: Group, channel: Channel, x: np.ndarray, key: Key) -> list[np.ndarray]:
    """Everybody's vector, in rank order; valid until the links are read again."""
    header = group.header(key, x.nbytes, channel.checksum(x))
    views = channel.swap(group.peers, header, x, key, key)
    parts = [np.frombuffer(view, x.dtype) for view in views]
    parts.insert(group.rank, x)
    return parts


def _sum_into(group: Group, target: np.ndarray, parts: list[np.ndarray]) -> None:
    """Sum `parts` in their order; `target` may be one of them."""
    if len(parts) == 2:
        np.add(parts[0], parts[1], out=target)
        return
    total = group.room("sum", target.dtype, target.size)
    np.add(parts[0], parts[1], out=total)
    for part in parts[2:-1]:
        np.add(total, part, out=total)
    np.add(total, parts[-1], out=target)


# --- shared memory ----------------------------------------------------------------------------------------------------


def _ring(group: Group, channel: Channel, x: np.ndarray, key: Key) -> list[np.ndarray] | None:
    """Ring everybody's doorbell; return all ranks' vectors in shared memory, None if somebody has no room there."""
    place = group.place(x)
    payload = b""
    if place is not None:
        segment, number, offset = place
        payload = doorbell(number, offset, x.nbytes) + (segment.path.encode() if segment.named else b"")
    header = group.header(key, len(payload), channel.checksum(payload), DOORBELL)
    replies = channel.swap(group.peers, header, payload, key, key)
    slots = [doorbell_array(group, peer, bytes(reply), x.dtype) for peer, reply in zip(group.peers, replies, strict=True)]
    if place is None or any(slot is None for slot in slots):
        return None
    slots.insert(group.rank, segment.array(x.dtype, x.size, offset))
    return slots  # type: ignore[return-value]


def _done(group: Group, channel: Channel, key: Key) -> None:
    channel.finish(group.peers, group.header(key, 0, 0, RESULT), key, key)
    group.forget_name()


def doorbell(number: int, offset: int, nbytes: int) -> bytes:
    """The payload that says where data lies."""
    return _PLACE.pack(number, offset, nbytes)


def doorbell_array(group: Group, peer: int, payload: bytes, dtype: Any) -> np.ndarray | None:
    """What a doorbell from `peer` points to; None for an empty one."""
    if not payload:
        return None
    number, offset, nbytes = _PLACE.unpack_from(payload)
    segment = group.peer_segment(peer, number, payload[_PLACE.size :].decode())
    return segment.array(dtype, nbytes // np.dtype(dtype).itemsize, offset)


def _count_shared(channel: Channel, given: int, returned: int, size: int) -> None:
    # What would have gone over a wire: our vector but for our own part, and our sums to all others.
    share = given * (size - 1) // size + returned * (size - 1)
    channel.meter.bytes_sent += share
    channel.meter.bytes_received += share


# --- sockets ----------------------------------------------------------------------------------------------------------


def _swap_large(
    group: Group, channel: Channel, x: np.ndarray, key: Key, writers: Any, awaiting: dict[int, int], place: Any
) -> None:
    """Send `x` to the writers in one frame, receive one frame from each awaited peer."""
    unsent = set(writers)
    frame = (group.header(key, x.nbytes, channel.checksum(x)), x) if unsent else None

    def supply(peer: int) -> tuple[bytes, Any] | None:
        if peer not in unsent:
            return None
        unsent.discard(peer)
        return frame

    channel.pump(set(writers), supply, awaiting, key, Sink(lambda p, h: _fit(group, p, h, place(p, h)), _ignore), key)


def _ignore(peer: int, header: Header) -> None:
    pass


def _fit(group: Group, peer: int, header: Header, view: memoryview) -> memoryview:
    if len(view) != header.length:
        raise CommError(
            f"rank {group.mesh.rank} expected {len(view)} bytes from rank {peer} at step {group.mesh.step}, "
            f"which sent {header.length}",
            rank=group.mesh.rank, peer=peer, step=group.mesh.step,
        )  # fmt: skip
    return view


def _through_sockets(group: Group, channel: Channel, x: np.ndarray, key: Key, give_back: bool) -> None:
    """Send each rank its part, block by block; sum our own; with `give_back`, send the sums to all.

    A block is summed, checked and sent on while it is in cache. Blocks of sums overtake those that wait to be sent.
    """
    step = BLOCK // x.itemsize
    parts = {peer: group.part(rank, x.size) for rank, peer in enumerate(group.ranks)}
    blocks = {peer: [(low, min(low + step, stop)) for low in range(start, stop, step)] for peer, (start, stop) in parts.items()}
    mine = blocks[group.mesh.rank]
    depth = 1 if group.size == 2 else len(mine)  # with one peer each block is summed before the next can come
    room = group.room("blocks", x.dtype, (group.size - 1) * depth * step).reshape(group.size - 1, depth, step)
    missing = [group.size - 1] * len(mine)
    gifts: dict[int, deque[int]] = {peer: deque(range(len(blocks[peer]))) for peer in group.peers}
    sums: dict[int, deque[int]] = {peer: deque() for peer in group.peers}
    writers = {peer for peer in group.peers if gifts[peer]}

    def supply(peer: int) -> tuple[bytes, Any] | None:
        if sums[peer]:
            index, flags = sums[peer].popleft(), RESULT
            low, high = mine[index]
        elif gifts[peer]:
            index, flags = gifts[peer].popleft(), 0
            low, high = blocks[peer][index]
        else:
            return None
        payload = x[low:high]
        return group.header(key, payload.nbytes, channel.checksum(payload), flags, index), payload

    def place(peer: int, header: Header) -> memoryview:
        low, high = (blocks[peer] if header.flags & RESULT else mine)[header.index]
        if header.flags & RESULT:
            return _fit(group, peer, header, bytes_of(x[low:high]))
        slot = room[group.peers.index(peer), header.index % depth, : high - low]
        return _fit(group, peer, header, bytes_of(slot))

    def arrived(peer: int, header: Header) -> None:
        if header.flags & RESULT:
            return
        index = header.index
        missing[index] -= 1
        if missing[index]:
            return
        low, high = mine[index]
        vectors = [room[position, index % depth, : high - low] for position in range(group.size - 1)]
        vectors.insert(group.rank, x[low:high])
        _sum_into(group, x[low:high], vectors)
        if give_back:
            for other in group.peers:
                sums[other].append(index)
            writers.update(group.peers)

    counts = {peer: len(mine) + (len(blocks[peer]) if give_back else 0) for peer in group.peers}
    awaiting = {peer: count for peer, count in counts.items() if count}
    channel.pump(writers, supply, awaiting, key, Sink(place, arrived), key)
