"""The direct algorithms: everybody talks to everybody, and sums are always made in rank order.

Small vectors travel whole; among many ranks of one host, through one of them (`star`). Large ones between ranks of one host
lie in shared memory, where every rank reduces its part of all of them. Large ones elsewhere go in blocks to the owner of each
part, and back from it. All of these give the same bits on every rank and every time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence

import numpy as np

from scaleml.arrays import Array
from scaleml.comm.collectives import star
from scaleml.comm.conventions import bytes_of
from scaleml.comm.errors import Mismatch
from scaleml.comm.transport.channel import Channel
from scaleml.comm.transport.frame import DOORBELL, INLINE, RESULT, Header, Payload
from scaleml.comm.transport.key import Key
from scaleml.comm.transport.membership import Membership
from scaleml.comm.transport.pump import Pump, Sink

CACHED = 256 * 1024
"""Bytes of one rank that are reduced at a time, so that the sum is still in cache when it is handed out."""

BLOCK = 512 * 1024
"""Bytes of a frame of a vector that goes through sockets."""


def barrier(members: Membership, channel: Channel, key: Key) -> None:
    """Return when all ranks are here."""
    if members.size >= star.STAR_RANKS:
        star.star_reduce(members, channel, b"", key, 0, star.nothing)
    else:
        channel.send_receive(members.peers, members.header(key, 0, 0), b"", key)


def direct_allreduce(members: Membership, channel: Channel, x: Array, key: Key) -> None:
    """Sum `x` over the ranks, in place."""
    if members.size == 1:
        return
    if x.nbytes <= INLINE:
        _sum_small(members, channel, x, key)
        return
    slots = share_slots(members, channel, x, key, x.nbytes // members.size)
    if slots is None:
        _through_sockets(members, channel, x, key, give_back=True)
        return
    start, stop = members.part(members.rank, x.size)
    mine = slots[members.rank]
    others = [slot for slot in slots if slot is not mine]
    step = CACHED // x.itemsize
    for low in range(start, stop, step):
        high = min(low + step, stop)
        total = mine[low:high]
        sum_into(members, total, [slot[low:high] for slot in slots])
        for slot in others:
            slot[low:high] = total
    leave(members, channel, key, (stop - start) * x.itemsize)
    if not np.may_share_memory(mine, x):  # it was staged
        x[:] = mine
    count_shared(channel, x.nbytes, (stop - start) * x.itemsize, members.size)


def reduce_scatter(members: Membership, channel: Channel, x: Array, key: Key) -> Array:
    """Sum this rank's part of `x` over the ranks, in place; return it. The rest of `x` is undefined afterwards."""
    start, stop = members.part(members.rank, x.size)
    if members.size == 1:
        pass
    elif x.nbytes <= INLINE:
        parts = _send_receive_small(members, channel, x, key)
        sum_into(members, x[start:stop], [part[start:stop] for part in parts])
    elif (slots := share_slots(members, channel, x, key, x.nbytes // members.size)) is None:
        _through_sockets(members, channel, x, key, give_back=False)
    else:
        sum_into(members, x[start:stop], [slot[start:stop] for slot in slots])
        leave(members, channel, key)
        count_shared(channel, x.nbytes, 0, members.size)
    return x[start:stop]


def allgather(members: Membership, channel: Channel, x: Array, key: Key) -> Array:
    """Return every rank's `x` as rows."""
    out = np.empty((members.size, x.size), x.dtype)
    out[members.rank] = x
    if members.size == 1:
        pass
    elif x.nbytes <= INLINE:
        for rank, part in enumerate(_send_receive_small(members, channel, x, key)):
            out[rank] = part
    elif (slots := share_slots(members, channel, x, key, x.nbytes)) is not None:
        for rank, slot in enumerate(slots):
            out[rank] = slot
        leave(members, channel, key)
        count_shared(channel, 0, x.nbytes, members.size)
    else:
        rows = {peer: bytes_of(row) for peer, row in zip(members.ranks, out, strict=True)}
        send_receive_large(members, channel, x, key, members.peers, members.peers, lambda peer, header: rows[peer])
    return out


def broadcast(members: Membership, channel: Channel, x: Array, key: Key, root: int) -> None:
    """Give `x` of rank `root` to all, in place."""
    if members.rank == root:
        send_receive_large(members, channel, x, key, members.peers, (), lambda peer, header: memoryview(b""))
    else:
        send_receive_large(members, channel, x, key, (), (members.ranks[root],), lambda peer, header: bytes_of(x))


def sum_into(members: Membership, target: Array, parts: list[Array]) -> None:
    """Sum `parts` in their order; `target` may be one of them."""
    if len(parts) == 2:
        np.add(parts[0], parts[1], out=target)
        return
    total = members.memory.scratch("sum", target.dtype, target.size)
    np.add(parts[0], parts[1], out=total)
    for part in parts[2:-1]:
        np.add(total, part, out=total)
    np.add(total, parts[-1], out=target)


# --- small ------------------------------------------------------------------------------------------------------------


def _sum_small(members: Membership, channel: Channel, x: Array, key: Key) -> None:
    if not (members.one_host and members.size >= star.STAR_RANKS):  # between hosts, one of them would send n vectors
        sum_into(members, x, _send_receive_small(members, channel, x, key))
        return

    def total(parts: Sequence[Payload]) -> Array:
        sum_into(members, x, [np.frombuffer(part, x.dtype) for part in parts])
        return x

    result = star.star_reduce(members, channel, x, key, 0, total)
    if result is not x:
        x[:] = np.frombuffer(result, x.dtype)


def _send_receive_small(members: Membership, channel: Channel, x: Array, key: Key) -> list[Array]:
    """Everybody's vector, in rank order; valid until the links are read again."""
    header = members.header(key, x.nbytes, channel.checksum(x))
    parts = [np.frombuffer(view, x.dtype) for view in channel.send_receive(members.peers, header, x, key)]
    parts.insert(members.rank, x)
    return parts


# --- shared memory ----------------------------------------------------------------------------------------------------


def share_slots(members: Membership, channel: Channel, x: Array, key: Key, share: int) -> list[Array] | None:
    """Ring everybody's doorbell; return all ranks' vectors in shared memory, None if somebody has no room there.

    `share` is how many bytes of ours each peer is going to use.
    """
    if not members.one_host:
        return None
    place = members.memory.place(x)
    if place:
        members.mesh.charge(members.peers, share)
    payload = members.memory.doorbell(place, x.nbytes) if place else b""
    replies: Sequence[bytes | memoryview]
    if members.size >= star.STAR_RANKS:
        replies = star.split(star.star_reduce(members, channel, payload, key, DOORBELL, star.join))
        del replies[members.rank]
    else:
        header = members.header(key, len(payload), channel.checksum(payload), DOORBELL)
        replies = [*channel.send_receive(members.peers, header, payload, key)]
    slots = [members.memory.answer(peer, reply, x.dtype) for peer, reply in zip(members.peers, replies, strict=True)]
    slots.insert(members.rank, place.segment.array(x.dtype, x.size, place.offset) if place else None)
    found = [slot for slot in slots if slot is not None]
    if len(found) == len(slots):
        return found
    leave(members, channel, key)  # all have seen it, and those who have a stage have shown it
    return None


def leave(members: Membership, channel: Channel, key: Key, written: int = 0) -> None:
    """Wait until all ranks are done with the others' memory, into each of which we have written so many bytes."""
    if written:
        members.mesh.charge(members.peers, written)
    blocked, blocker = channel.blocked, channel.blocker  # waiting ended with the operation's first headers
    if members.size >= star.STAR_RANKS:
        star.star_reduce(members, channel, b"", key, RESULT, star.nothing)
    else:
        channel.send_receive(members.peers, members.header(key, 0, 0, RESULT), b"", key)
    channel.blocked, channel.blocker = blocked, blocker
    members.memory.stage_was_opened()


def count_shared(channel: Channel, given: int, returned: int, size: int) -> None:
    """Count what would have gone over a wire: our vector but for our own part, and our sums to all others."""
    share = given * (size - 1) // size + returned * (size - 1)
    channel.meter.bytes_sent += share
    channel.meter.bytes_received += share


# --- sockets ----------------------------------------------------------------------------------------------------------


def send_receive_large(
    members: Membership,
    channel: Channel,
    x: Array,
    key: Key,
    writers: Collection[int],
    readers: Collection[int],
    place: Callable[[int, Header], memoryview],
) -> None:
    """Send `x` to the writers in one frame, receive one frame from each reader."""
    unsent = set(writers)
    frame = (members.header(key, x.nbytes, channel.checksum(x)), x) if unsent else None

    def supply(peer: int) -> tuple[bytes, Payload] | None:
        if peer not in unsent:
            return None
        unsent.discard(peer)
        return frame

    sink = Sink(key, lambda peer, header: fit(members, peer, header, place(peer, header)), lambda peer, header: None)
    Pump(channel, key, set(writers), supply, dict.fromkeys(readers, 1), sink).run()


def fit(members: Membership, peer: int, header: Header, view: memoryview) -> memoryview:
    """Return `view`, where a payload is to go; `Mismatch` if it has another length."""
    if len(view) != header.length:
        raise Mismatch(
            f"rank {members.context.rank} expected {len(view)} bytes from rank {peer} at step {members.context.step}, "
            f"which sent {header.length}: all ranks must use the same version and settings",
            rank=members.context.rank, peer=peer, step=members.context.step,
        )  # fmt: skip
    return view


def _through_sockets(members: Membership, channel: Channel, x: Array, key: Key, give_back: bool) -> None:
    """Send each rank its part, block by block; sum our own; with `give_back`, send the sums to all.

    A block is summed, checked and sent on while it is in cache. Blocks of sums overtake those that wait to be sent.
    """
    step = BLOCK // x.itemsize
    blocks = {}
    for rank, peer in enumerate(members.ranks):
        start, stop = members.part(rank, x.size)
        blocks[peer] = [(low, min(low + step, stop)) for low in range(start, stop, step)]
    mine = blocks[members.context.rank]
    others = members.size - 1
    depth = 1 if others == 1 else len(mine)  # with one peer, each block is summed before the next can come
    room = members.memory.scratch("blocks", x.dtype, others * depth * step).reshape(others, depth, step)
    missing = [others] * len(mine)
    outgoing = {peer: deque(range(len(blocks[peer]))) for peer in members.peers}
    sums: dict[int, deque[int]] = {peer: deque() for peer in members.peers}
    writers = {peer for peer in members.peers if outgoing[peer]}

    def supply(peer: int) -> tuple[bytes, Payload] | None:
        if sums[peer]:
            index, flags = sums[peer].popleft(), RESULT
            low, high = mine[index]
        elif outgoing[peer]:
            index, flags = outgoing[peer].popleft(), 0
            low, high = blocks[peer][index]
        else:
            return None
        payload = x[low:high]
        return members.header(key, payload.nbytes, channel.checksum(payload), flags, index), payload

    def place(peer: int, header: Header) -> memoryview:
        if header.flags & RESULT:
            low, high = blocks[peer][header.block]
            return fit(members, peer, header, bytes_of(x[low:high]))
        low, high = mine[header.block]
        return fit(members, peer, header, bytes_of(room[members.peers.index(peer), header.block % depth, : high - low]))

    def arrived(peer: int, header: Header) -> None:
        index = header.block
        if header.flags & RESULT:
            return
        missing[index] -= 1
        if missing[index]:
            return
        low, high = mine[index]
        vectors = [room[position, index % depth, : high - low] for position in range(others)]
        vectors.insert(members.rank, x[low:high])
        sum_into(members, x[low:high], vectors)
        if give_back:
            for other in members.peers:
                sums[other].append(index)
            writers.update(members.peers)

    counts = {peer: len(mine) + (len(blocks[peer]) if give_back else 0) for peer in members.peers}
    awaiting = {peer: count for peer, count in counts.items() if count}
    Pump(channel, key, writers, supply, awaiting, Sink(key, place, arrived)).run()
