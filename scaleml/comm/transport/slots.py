"""Slots: everybody's vector in the memory of one host, where all may read and write it while all are in the same collective."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scaleml.arrays import Array
from scaleml.comm.communicator import ANY
from scaleml.comm.transport import star
from scaleml.comm.transport.channel import Channel
from scaleml.comm.transport.frame import DOORBELL, RESULT, Key
from scaleml.comm.transport.membership import Membership


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
        star.check_count(members, channel, replies)
        del replies[members.rank]
    else:
        replies = [*channel.send_receive(members.peers, key, payload, DOORBELL)]
    answer, peers = members.memory.answer, members.peers
    slots = [answer(peer, reply, x.dtype, x.size) for peer, reply in zip(peers, replies, strict=True)]
    slots.insert(members.rank, place.segment.array(x.dtype, x.size, place.offset) if place else None)
    found = [slot for slot in slots if slot is not None]
    if len(found) == len(slots):
        return found
    leave(members, channel, key)  # all have seen it, and those who have a stage have shown it
    return None


def leave(members: Membership, channel: Channel, key: Key) -> None:
    """Wait until all ranks are done with the others' memory."""
    blocked, blocker = channel.blocked, channel.blocker  # waiting ended with the operation's first headers
    if members.size >= star.STAR_RANKS:
        star.star_reduce(members, channel, b"", key, RESULT, star.nothing, 0)
    else:
        channel.send_receive(members.peers, key, b"", RESULT, 0)
    channel.blocked, channel.blocker = blocked, blocker
    members.memory.stage_was_opened()


def unstage(x: Array, slot: Array) -> None:
    """Copy back what was copied into shared memory."""
    if not np.may_share_memory(slot, x):
        x[:] = slot


def count_shared(channel: Channel, sent: int, received: int) -> None:
    """Count what would have gone over a wire."""
    channel.meter.bytes_sent += sent
    channel.meter.bytes_received += received


def broadcast_slot(members: Membership, channel: Channel, x: Array, key: Key, root: int) -> bool:
    """Copy the root's vector out of its memory; False, on all, if it has no room there."""
    memory, peer = members.memory, members.ranks[root]
    if members.rank != root:
        doorbell = channel.take_small(peer, channel.await_header(peer, key), key, DOORBELL, ANY)
        slot = memory.answer(peer, doorbell, x.dtype, x.size)
        if slot is not None:
            x[:] = slot
            channel.send((peer,), channel.header(key, b"", RESULT), b"", key)
            count_shared(channel, 0, x.nbytes)
        return slot is not None
    place = memory.place(x)
    payload = memory.doorbell(place, x.nbytes) if place else b""
    if place:
        members.mesh.charge(members.peers, x.nbytes)
    channel.send(members.peers, channel.header(key, payload, DOORBELL), payload, key)
    if not place:
        return False
    blocked, blocker = channel.blocked, channel.blocker  # nobody is waited for but for the wire
    channel.collect(members.peers, key, RESULT, 0)
    channel.blocked, channel.blocker = blocked, blocker
    memory.stage_was_opened()
    count_shared(channel, x.nbytes * (members.size - 1), 0)
    return True
