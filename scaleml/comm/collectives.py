"""The direct algorithms: everybody talks to everybody, and sums are always made in rank order.

Small vectors travel whole; among many ranks of one host, through one of them (`hub`). Large ones between ranks of one host
lie in shared memory, where every rank reduces its part of all of them. Large ones elsewhere go in blocks to the owner of each
part, and back from it. All of these give the same bits on every rank and every time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from . import hub
from .channel import Channel
from .errors import Mismatch
from .frame import DOORBELL, RESULT, Header
from .key import Key
from .link import INLINE
from .pump import Pump, Sink

if TYPE_CHECKING:
    from .group import Group

CACHED = 256 * 1024
"""Bytes of one rank that are reduced at a time, so that the sum is still in cache when it is handed out."""

BLOCK = 512 * 1024
"""Bytes of a frame of a vector that goes through sockets."""


def bytes_of(x: np.ndarray) -> memoryview:
    """View the bytes of a contiguous array."""
    return memoryview(x.data).cast("B") if x.size else memoryview(b"")


def barrier(group: Group, channel: Channel, key: Key) -> None:
    """Return when all ranks are here."""
    if group.size >= hub.MANY:
        hub.meet(group, channel, b"", key, 0, hub.nothing)
    else:
        channel.swap(group.peers, group.header(key, 0, 0), b"", key)


def allreduce(group: Group, channel: Channel, x: np.ndarray, key: Key) -> None:
    """Sum `x` over the ranks, in place."""
    if group.size == 1:
        return
    if x.nbytes <= INLINE:
        _sum_small(group, channel, x, key)
        return
    slots = ring_doorbells(group, channel, x, key, x.nbytes // group.size)
    if slots is None:
        _through_sockets(group, channel, x, key, give_back=True)
        return
    start, stop = group.part(group.rank, x.size)
    mine = slots[group.rank]
    others = [slot for slot in slots if slot is not mine]
    step = CACHED // x.itemsize
    for low in range(start, stop, step):
        high = min(low + step, stop)
        total = mine[low:high]
        sum_into(group, total, [slot[low:high] for slot in slots])
        for slot in others:
            slot[low:high] = total
    leave(group, channel, key, (stop - start) * x.itemsize)
    if not np.may_share_memory(mine, x):  # it was staged
        x[:] = mine
    count_shared(channel, x.nbytes, (stop - start) * x.itemsize, group.size)


def reduce_scatter(group: Group, channel: Channel, x: np.ndarray, key: Key) -> np.ndarray:
    """Sum this rank's part of `x` over the ranks, in place; return it. The rest of `x` is undefined afterwards."""
    start, stop = group.part(group.rank, x.size)
    if group.size == 1:
        pass
    elif x.nbytes <= INLINE:
        parts = _swap_small(group, channel, x, key)
        sum_into(group, x[start:stop], [part[start:stop] for part in parts])
    elif (slots := ring_doorbells(group, channel, x, key, x.nbytes // group.size)) is None:
        _through_sockets(group, channel, x, key, give_back=False)
    else:
        sum_into(group, x[start:stop], [slot[start:stop] for slot in slots])
        leave(group, channel, key)
        count_shared(channel, x.nbytes, 0, group.size)
    return x[start:stop]


def allgather(group: Group, channel: Channel, x: np.ndarray, key: Key) -> np.ndarray:
    """Return every rank's `x` as rows."""
    out = np.empty((group.size, x.size), x.dtype)
    out[group.rank] = x
    if group.size == 1:
        pass
    elif x.nbytes <= INLINE:
        for rank, part in enumerate(_swap_small(group, channel, x, key)):
            out[rank] = part
    elif (slots := ring_doorbells(group, channel, x, key, x.nbytes)) is not None:
        for rank, slot in enumerate(slots):
            out[rank] = slot
        leave(group, channel, key)
        count_shared(channel, 0, x.nbytes, group.size)
    else:
        rows = {peer: bytes_of(row) for peer, row in zip(group.ranks, out, strict=True)}
        swap_large(group, channel, x, key, group.peers, group.peers, lambda peer, header: rows[peer])
    return out


def broadcast(group: Group, channel: Channel, x: np.ndarray, key: Key, root: int) -> None:
    """Give `x` of rank `root` to all, in place."""
    if group.rank == root:
        swap_large(group, channel, x, key, group.peers, (), lambda peer, header: memoryview(b""))
    else:
        swap_large(group, channel, x, key, (), (group.ranks[root],), lambda peer, header: bytes_of(x))


def sum_into(group: Group, target: np.ndarray, parts: list[np.ndarray]) -> None:
    """Sum `parts` in their order; `target` may be one of them."""
    if len(parts) == 2:
        np.add(parts[0], parts[1], out=target)
        return
    total = group.memory.scratch("sum", target.dtype, target.size)
    np.add(parts[0], parts[1], out=total)
    for part in parts[2:-1]:
        np.add(total, part, out=total)
    np.add(total, parts[-1], out=target)


# --- small ------------------------------------------------------------------------------------------------------------


def _sum_small(group: Group, channel: Channel, x: np.ndarray, key: Key) -> None:
    if not (group.one_host and group.size >= hub.MANY):  # between hosts, one of them would send n vectors
        sum_into(group, x, _swap_small(group, channel, x, key))
        return

    def total(parts: Sequence[Any]) -> np.ndarray:
        sum_into(group, x, [np.frombuffer(part, x.dtype) for part in parts])
        return x

    result = hub.meet(group, channel, x, key, 0, total)
    if result is not x:
        x[:] = np.frombuffer(result, x.dtype)


def _swap_small(group: Group, channel: Channel, x: np.ndarray, key: Key) -> list[np.ndarray]:
    """Everybody's vector, in rank order; valid until the links are read again."""
    header = group.header(key, x.nbytes, channel.checksum(x))
    parts = [np.frombuffer(view, x.dtype) for view in channel.swap(group.peers, header, x, key)]
    parts.insert(group.rank, x)
    return parts


# --- shared memory ----------------------------------------------------------------------------------------------------


def ring_doorbells(group: Group, channel: Channel, x: np.ndarray, key: Key, share: int) -> list[np.ndarray] | None:
    """Ring everybody's doorbell; return all ranks' vectors in shared memory, None if somebody has no room there.

    `share` is how many bytes of ours each peer is going to use.
    """
    if not group.one_host:
        return None
    place = group.memory.place(x)
    if place and group.mesh.wires is not None:
        group.mesh.wires.charge(group.peers, share)
    payload = group.memory.doorbell(place, x.nbytes) if place else b""
    replies: list[Any]
    if group.size >= hub.MANY:
        replies = hub.part(hub.meet(group, channel, payload, key, DOORBELL, hub.join))
        del replies[group.rank]
    else:
        header = group.header(key, len(payload), channel.checksum(payload), DOORBELL)
        replies = [*channel.swap(group.peers, header, payload, key)]
    slots = [group.memory.answer(peer, reply, x.dtype) for peer, reply in zip(group.peers, replies, strict=True)]
    slots.insert(group.rank, place.segment.array(x.dtype, x.size, place.offset) if place else None)
    found = [slot for slot in slots if slot is not None]
    if len(found) == len(slots):
        return found
    leave(group, channel, key)  # all have seen it, and those who have a stage have shown it
    return None


def leave(group: Group, channel: Channel, key: Key, written: int = 0) -> None:
    """Wait until all ranks are done with the others' memory, into each of which we have written so many bytes."""
    if written and group.mesh.wires is not None:
        group.mesh.wires.charge(group.peers, written)
    blocked, blocker = channel.blocked, channel.blocker  # waiting ended with the operation's first headers
    if group.size >= hub.MANY:
        hub.meet(group, channel, b"", key, RESULT, hub.nothing)
    else:
        channel.swap(group.peers, group.header(key, 0, 0, RESULT), b"", key)
    channel.blocked, channel.blocker = blocked, blocker
    group.memory.opened()


def count_shared(channel: Channel, given: int, returned: int, size: int) -> None:
    """Count what would have gone over a wire: our vector but for our own part, and our sums to all others."""
    share = given * (size - 1) // size + returned * (size - 1)
    channel.meter.bytes_sent += share
    channel.meter.bytes_received += share


# --- sockets ----------------------------------------------------------------------------------------------------------


def swap_large(
    group: Group,
    channel: Channel,
    x: np.ndarray,
    key: Key,
    writers: Collection[int],
    readers: Collection[int],
    place: Any,
) -> None:
    """Send `x` to the writers in one frame, receive one frame from each reader."""
    unsent = set(writers)
    frame = (group.header(key, x.nbytes, channel.checksum(x)), x) if unsent else None

    def supply(peer: int) -> tuple[bytes, Any] | None:
        if peer not in unsent:
            return None
        unsent.discard(peer)
        return frame

    sink = Sink(key, lambda peer, header: fit(group, peer, header, place(peer, header)), lambda peer, header: None)
    Pump(channel, key, set(writers), supply, dict.fromkeys(readers, 1), sink).run()


def fit(group: Group, peer: int, header: Header, view: memoryview) -> memoryview:
    """Return `view`, where a payload is to go; `Mismatch` if it has another length."""
    if len(view) != header.length:
        raise Mismatch(
            f"rank {group.mesh.rank} expected {len(view)} bytes from rank {peer} at step {group.mesh.step}, "
            f"which sent {header.length}: all ranks must use the same version and settings",
            rank=group.mesh.rank, peer=peer, step=group.mesh.step,
        )  # fmt: skip
    return view


def _through_sockets(group: Group, channel: Channel, x: np.ndarray, key: Key, give_back: bool) -> None:
    """Send each rank its part, block by block; sum our own; with `give_back`, send the sums to all.

    A block is summed, checked and sent on while it is in cache. Blocks of sums overtake those that wait to be sent.
    """
    step = BLOCK // x.itemsize
    blocks = {}
    for rank, peer in enumerate(group.ranks):
        start, stop = group.part(rank, x.size)
        blocks[peer] = [(low, min(low + step, stop)) for low in range(start, stop, step)]
    mine = blocks[group.mesh.rank]
    others = group.size - 1
    depth = 1 if others == 1 else len(mine)  # with one peer, each block is summed before the next can come
    room = group.memory.scratch("blocks", x.dtype, others * depth * step).reshape(others, depth, step)
    missing = [others] * len(mine)
    gifts = {peer: deque(range(len(blocks[peer]))) for peer in group.peers}
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
        if header.flags & RESULT:
            low, high = blocks[peer][header.block]
            return fit(group, peer, header, bytes_of(x[low:high]))
        low, high = mine[header.block]
        return fit(group, peer, header, bytes_of(room[group.peers.index(peer), header.block % depth, : high - low]))

    def arrived(peer: int, header: Header) -> None:
        index = header.block
        if header.flags & RESULT:
            return
        missing[index] -= 1
        if missing[index]:
            return
        low, high = mine[index]
        vectors = [room[position, index % depth, : high - low] for position in range(others)]
        vectors.insert(group.rank, x[low:high])
        sum_into(group, x[low:high], vectors)
        if give_back:
            for other in group.peers:
                sums[other].append(index)
            writers.update(group.peers)

    counts = {peer: len(mine) + (len(blocks[peer]) if give_back else 0) for peer in group.peers}
    awaiting = {peer: count for peer, count in counts.items() if count}
    Pump(channel, key, writers, supply, awaiting, Sink(key, place, arrived)).run()
