"""Streaming: long payloads through sockets, in blocks that are summed, checked and sent on while they are in cache."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Final

import numpy as np

from scaleml.arrays import Array
from scaleml.comm.conventions import INLINE, bytes_of
from scaleml.comm.transport.channel import Channel
from scaleml.comm.transport.frame import RESULT, ROLE, ROLES, Header, Key, Payload
from scaleml.comm.transport.membership import Membership
from scaleml.comm.transport.pump import Pump, Sink

BLOCK: Final = 2 * 1024 * 1024
"""Bytes of a block here. Smaller ones stay in nearer caches, but each costs two frames: at 512 KB both ranks compute 15% more."""


def fit(channel: Channel, peer: int, header: Header, view: memoryview, role: int = 0, block: int = 0) -> memoryview:
    """Return `view`, where the payload in front is to go.

    Raises
    ------
    Mismatch
        If it has another length.
    CorruptFrame
        If it is another block.
    """
    channel.link(peer).check(header, role, block)
    if len(view) != header.length:
        raise channel.context.other_length(peer, header.length, len(view))
    return view


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


def send_receive_whole(
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
    frame = (channel.header(key, x), x) if unsent else None

    def supply(peer: int) -> tuple[bytes, Payload] | None:
        if peer not in unsent:
            return None
        unsent.discard(peer)
        return frame

    sink = Sink(key, lambda peer, header: fit(channel, peer, header, place(peer, header)), lambda peer, header: None)
    Pump(channel, key, set(writers), supply, dict.fromkeys(readers, 1), sink).run()


def send_receive_blocks(
    members: Membership,
    channel: Channel,
    key: Key,
    outgoing: Sequence[Array],
    dest: int,
    incoming: Sequence[Array],
    source: int,
    added: int,
    ahead: int | None,
) -> None:
    """`Communicator.send_receive`, with peers by their root numbers."""
    ready = len(outgoing) if ahead is None else ahead
    if len(outgoing) == ready <= 1 and len(incoming) <= 1 and all(x.nbytes <= INLINE for x in (*outgoing, *incoming)):
        _send_receive_small(members, channel, key, outgoing, dest, incoming, source, added)
        return
    sent = 0
    writers = {dest} if outgoing and ready else set()
    summed = incoming[:added]
    most = max((block.size for block in summed), default=0)
    room = members.memory.scratch("block", summed[0].dtype, most) if summed else np.empty(0)

    def supply(peer: int) -> tuple[bytes, Payload] | None:
        nonlocal sent
        if sent == min(ready, len(outgoing)):
            return None
        payload, index = outgoing[sent], sent
        sent += 1
        return channel.header(key, payload, block=index), payload

    came = 0

    def place(peer: int, header: Header) -> memoryview:
        block = incoming[came]
        return fit(channel, peer, header, bytes_of(room[: block.size] if came < added else block), 0, came)

    def arrived(peer: int, header: Header) -> None:
        nonlocal ready, came
        if came < added:
            block = incoming[came]
            block += room[: block.size]
        came += 1
        ready += 1
        if ready <= len(outgoing):
            writers.add(dest)

    awaiting = {source: len(incoming)} if incoming else {}
    Pump(channel, key, writers, supply, awaiting, Sink(key, place, arrived)).run()


def _send_receive_small(
    members: Membership,
    channel: Channel,
    key: Key,
    outgoing: Sequence[Array],
    dest: int,
    incoming: Sequence[Array],
    source: int,
    added: int,
) -> None:
    """Exchange at most one small block each way: it is taken from where it was read."""
    for block in outgoing:
        channel.send((dest,), channel.header(key, block), block, key)
    for place in incoming:
        if channel.unsent:
            channel.send_started((source,), key)
        fit(channel, source, channel.await_header(source, key), bytes_of(place))
        block = np.frombuffer(channel.read_payload(source, key), place.dtype)
        if added:
            place += block
        else:
            place[:] = block


def sum_in_blocks(
    members: Membership, channel: Channel, x: Array, key: Key, takers: Sequence[int], givers: Sequence[int]
) -> None:
    """Send each rank its part, block by block; sum our own, send the sums to the takers, receive the givers'.

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
        return channel.header(key, payload, flags, index), payload

    came = {(peer, role): 0 for peer in members.peers for role in ((0, RESULT) if peer in givers else (0,))}

    def place(peer: int, header: Header) -> memoryview:
        role = header.flags & ROLE
        index, theirs = came.get((peer, role), 0), blocks[peer] if role else mine
        if (peer, role) not in came or index >= len(theirs):
            raise channel.link(peer).corrupt(f"its {ROLES[role]} {header.block} was not due", header.step)
        low, high = theirs[index]
        view = x[low:high] if role else room[members.peers.index(peer), index % depth, : high - low]
        return fit(channel, peer, header, bytes_of(view), role, index)

    def arrived(peer: int, header: Header) -> None:
        index, role = header.block, header.flags & ROLE
        came[peer, role] += 1
        if role:
            return
        missing[index] -= 1
        if missing[index]:
            return
        low, high = mine[index]
        vectors = [room[position, index % depth, : high - low] for position in range(others)]
        vectors.insert(members.rank, x[low:high])
        sum_into(members, x[low:high], vectors)
        for other in takers:
            sums[other].append(index)
        writers.update(takers)

    counts = {peer: len(mine) + (len(blocks[peer]) if peer in givers else 0) for peer in members.peers}
    awaiting = {peer: count for peer, count in counts.items() if count}
    Pump(channel, key, writers, supply, awaiting, Sink(key, place, arrived)).run()
