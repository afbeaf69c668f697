"""The direct algorithms: everybody talks to everybody, and sums are always made in rank order.

They are the socket communicator's own way, of which topologies are made, not one of these: what lies in shared memory, and which
frames overtake which, only links know. Small vectors travel whole; among many ranks of one host, through one of them (`star`).
Large ones between ranks of one host lie in shared memory (`slots`), where every rank reduces its part of all of them. Large ones
elsewhere go in blocks to the owner of each part, and back from it (`streaming`). All of these give the same bits on every rank and
every time.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scaleml.arrays import Array
from scaleml.comm.conventions import INLINE, bytes_of
from scaleml.comm.transport import star
from scaleml.comm.transport.channel import Channel
from scaleml.comm.transport.frame import Key, Payload
from scaleml.comm.transport.membership import Membership
from scaleml.comm.transport.slots import broadcast_slot, count_shared, leave, share_slots, unstage
from scaleml.comm.transport.streaming import send_receive_whole, sum_in_blocks, sum_into

CACHED = 256 * 1024
"""Bytes of one rank that are reduced at a time, so that the sum is still in cache when it is handed out."""


def barrier(members: Membership, channel: Channel, key: Key) -> None:
    """Return when all ranks are here."""
    if members.size >= star.STAR_RANKS:
        star.star_reduce(members, channel, b"", key, 0, star.nothing, 0)
    else:
        channel.send_receive(members.peers, key, b"", 0, 0)


def allreduce(members: Membership, channel: Channel, x: Array, key: Key) -> None:
    """Sum `x` over the ranks, in place."""
    if members.size == 1:
        return
    if x.nbytes <= INLINE:
        _sum_small(members, channel, x, key)
        return
    slots = share_slots(members, channel, x, key, x.nbytes // members.size)
    if slots is None:
        sum_in_blocks(members, channel, x, key, takers=members.peers, givers=members.peers)
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
    written = (stop - start) * x.itemsize
    members.mesh.charge(members.peers, written)
    leave(members, channel, key)
    unstage(x, mine)
    share = _share(members, x) + written * (members.size - 1)
    count_shared(channel, share, share)


def reduce(members: Membership, channel: Channel, x: Array, key: Key, root: int) -> None:
    """Sum `x` over the ranks into that of `root`. The others' is undefined afterwards."""
    here, peer = members.rank == root, members.ranks[root]
    if members.size == 1:
        return
    if x.nbytes <= INLINE:
        if here:
            sum_into(members, x, _in_order(members, x, channel.collect(members.peers, key, 0, x.nbytes)))
        else:
            channel.send((peer,), channel.header(key, x), x, key)
        return
    slots = share_slots(members, channel, x, key, x.nbytes // members.size)
    if slots is None:
        sum_in_blocks(members, channel, x, key, () if here else (peer,), members.peers if here else ())
        return
    start, stop = members.part(members.rank, x.size)
    sum_into(members, slots[root][start:stop], [slot[start:stop] for slot in slots])
    written = 0 if here else (stop - start) * x.itemsize
    if written:
        members.mesh.charge((peer,), written)
    leave(members, channel, key)
    if here:
        unstage(x, slots[root])
    share = _share(members, x)
    count_shared(channel, share + written, share + (x.nbytes - (stop - start) * x.itemsize if here else 0))


def reduce_scatter(members: Membership, channel: Channel, x: Array, key: Key) -> Array:
    """Sum this rank's part of `x` over the ranks, in place; return it. The rest of `x` is undefined afterwards."""
    start, stop = members.part(members.rank, x.size)
    if members.size == 1:
        pass
    elif x.nbytes <= INLINE:
        parts = _in_order(members, x, channel.send_receive(members.peers, key, x, 0, x.nbytes))
        sum_into(members, x[start:stop], [part[start:stop] for part in parts])
    elif (slots := share_slots(members, channel, x, key, x.nbytes // members.size)) is None:
        sum_in_blocks(members, channel, x, key, takers=(), givers=())
    else:
        sum_into(members, x[start:stop], [slot[start:stop] for slot in slots])
        leave(members, channel, key)
        share = _share(members, x)
        count_shared(channel, share, share)
    return x[start:stop]


def allgather(members: Membership, channel: Channel, x: Array, key: Key) -> Array:
    """Return every rank's `x` as rows."""
    out = np.empty((members.size, x.size), x.dtype)
    out[members.rank] = x
    if members.size == 1:
        pass
    elif x.nbytes <= INLINE:
        for rank, part in enumerate(_in_order(members, x, channel.send_receive(members.peers, key, x, 0, x.nbytes))):
            out[rank] = part
    elif (slots := share_slots(members, channel, x, key, x.nbytes)) is not None:
        for rank, slot in enumerate(slots):
            out[rank] = slot
        leave(members, channel, key)
        share = x.nbytes * (members.size - 1)
        count_shared(channel, share, share)
    else:
        rows = {peer: bytes_of(row) for peer, row in zip(members.ranks, out, strict=True)}
        send_receive_whole(members, channel, x, key, members.peers, members.peers, lambda peer, header: rows[peer])
    return out


def broadcast(members: Membership, channel: Channel, x: Array, key: Key, root: int) -> None:
    """Give `x` of rank `root` to all, in place."""
    if members.size == 1:
        return
    if x.nbytes > INLINE and members.one_host and broadcast_slot(members, channel, x, key, root):
        return
    if members.rank == root:
        send_receive_whole(members, channel, x, key, members.peers, (), lambda peer, header: memoryview(b""))
    else:
        send_receive_whole(members, channel, x, key, (), (members.ranks[root],), lambda peer, header: bytes_of(x))


def _share(members: Membership, x: Array) -> int:
    """Return the bytes of `x` that are others' parts."""
    return x.nbytes * (members.size - 1) // members.size


def _sum_small(members: Membership, channel: Channel, x: Array, key: Key) -> None:
    if members.size == 2:
        theirs = np.frombuffer(channel.send_receive(members.peers, key, x, 0, x.nbytes)[0], x.dtype)
        first, second = (theirs, x) if members.rank else (x, theirs)
        np.add(first, second, out=x)
        return
    if not (members.one_host and members.size >= star.STAR_RANKS):  # between hosts, one of them would send n vectors
        sum_into(members, x, _in_order(members, x, channel.send_receive(members.peers, key, x, 0, x.nbytes)))
        return

    def total(parts: Sequence[Payload]) -> Array:
        sum_into(members, x, [np.frombuffer(part, x.dtype) for part in parts])
        return x

    result = star.star_reduce(members, channel, x, key, 0, total, x.nbytes)
    if result is not x:
        x[:] = np.frombuffer(result, x.dtype)


def _in_order(members: Membership, x: Array, views: Sequence[memoryview]) -> list[Array]:
    """Return `x` and the peers' vectors in rank order; valid until the links are read again."""
    parts = [np.frombuffer(view, x.dtype) for view in views]
    parts.insert(members.rank, x)
    return parts
