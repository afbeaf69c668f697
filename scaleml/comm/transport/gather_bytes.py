"""Gather: bytes of any lengths, from all ranks to all."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from scaleml.comm.conventions import INLINE
from scaleml.comm.transport import star
from scaleml.comm.transport.channel import Channel
from scaleml.comm.transport.frame import Header, Key
from scaleml.comm.transport.membership import Membership
from scaleml.comm.transport.streaming import send_receive_whole


def allgather_bytes(members: Membership, channel: Channel, payload: bytes, key: Key) -> list[bytes]:
    """Return every rank's bytes, of any lengths."""
    if members.size < star.STAR_RANKS and len(payload) <= INLINE:
        views = _swap_small(members, channel, payload, key)
        return [payload if rank == members.rank else views[peer] for rank, peer in enumerate(members.ranks)]
    if members.size < star.STAR_RANKS:
        found = _send_receive_bytes(members, channel, payload, key, members.peers, members.peers)
        return [payload if rank == members.rank else bytes(found[peer]) for rank, peer in enumerate(members.ranks)]
    first = members.ranks[0]
    if members.rank:
        _send_receive_bytes(members, channel, payload, key, (first,), ())
        parts = star.split(_send_receive_bytes(members, channel, b"", key, (), (first,))[first])
        star.check_count(members, channel, parts)
        return parts
    found = _send_receive_bytes(members, channel, b"", key, (), members.peers)
    parts = [payload, *(bytes(found[peer]) for peer in members.peers)]
    _send_receive_bytes(members, channel, star.join(parts), key, members.peers, ())
    return parts


def _swap_small(members: Membership, channel: Channel, payload: bytes, key: Key) -> dict[int, bytes]:
    """Send a small payload to all peers in one piece; return theirs, which may be long."""
    peers = members.peers
    channel.send(peers, channel.header(key, payload), payload, key)
    if channel.unsent:
        channel.send_started(peers, key)
    if len(peers) > 1:
        channel.await_headers(peers, key)
    found = {}
    for peer in peers:
        header, link = channel.await_header(peer, key), channel.link(peer)
        link.check(header, 0)
        room = link.room(header) if header.length > INLINE else None
        found[peer] = bytes(channel.read_payload(peer, key, room))
    return found


def _send_receive_bytes(
    members: Membership, channel: Channel, payload: bytes, key: Key, writers: Collection[int], readers: Collection[int]
) -> dict[int, memoryview]:
    """Send bytes of any length to the writers; return what comes from each reader."""
    found: dict[int, memoryview] = {}

    def place(peer: int, header: Header) -> memoryview:
        if peer not in found:
            found[peer] = channel.link(peer).room(header)
        return found[peer]

    send_receive_whole(members, channel, np.frombuffer(payload, np.uint8), key, writers, readers, place)
    return found
