"""The star: among many ranks, one hears everybody and answers all: 2 (n - 1) frames, where everybody to everybody would be n (n - 1).

Each frame wakes a process. With 64 ranks these are 126 instead of 4,032, and the one that hears them all is done before the others
would have read theirs. With few ranks the second hop takes longer than the frames that it saves.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

from scaleml.comm.communicator import ANY
from scaleml.comm.meter import SHORT_WAIT
from scaleml.comm.transport.channel import Channel
from scaleml.comm.transport.frame import Key, Payload
from scaleml.comm.transport.membership import Membership

STAR_RANKS = 6
"""Ranks from which one speaks for all."""

_LENGTH = struct.Struct("<I")


def star_reduce(
    members: Membership,
    channel: Channel,
    payload: Payload,
    key: Key,
    role: int,
    merge: Callable[[Sequence[Payload]], Payload],
    size: int = ANY,
) -> Payload:
    """Return what the group's rank 0 makes of everybody's small payload, in rank order; small as well: all have `size` bytes.

    Its answer also names who kept it waiting, for whom all have waited. What is returned is valid until the links are read again.
    """
    center = members.ranks[0]
    if members.rank:
        channel.send((center,), channel.header(key, payload, role), payload, key)
        if channel.unsent:
            channel.send_started((center,), key)
        header = channel.await_header(center, key)
        if header.block >= members.context.size:
            raise channel.link(center).corrupt(f"there is no rank {header.block} to wait for", header.step)
        channel.blocker = header.block
        return channel.take_small(center, header, key, role, size)
    result = merge([payload, *channel.collect(members.peers, key, role, size)])
    last = channel.blocker if channel.blocked > SHORT_WAIT else center
    channel.send(members.peers, channel.header(key, result, role, last), result, key)
    return result


def join(parts: Sequence[Payload]) -> bytes:
    """Return several payloads as one."""
    return b"".join(_LENGTH.pack(len(part)) + bytes(part) for part in parts)


def split(joined: bytes | memoryview) -> list[bytes]:
    """Return what was joined; of what was not, something else than it."""
    parts, at = [], 0
    while at < len(joined):
        start = at + _LENGTH.size
        at = start + int.from_bytes(joined[at:start], "little")
        parts.append(bytes(joined[start:at]))
    return parts


def check_count(members: Membership, channel: Channel, parts: Sequence[bytes]) -> None:
    """Raise `CorruptFrame` unless the group's rank 0 has told of as many ranks as there are."""
    if len(parts) != members.size:
        raise channel.link(members.ranks[0]).corrupt(f"it tells of {len(parts)} of {members.size} ranks", -1)


def nothing(parts: Sequence[Payload]) -> bytes:
    """Return the answer to empty payloads."""
    return b""
