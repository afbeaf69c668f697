"""Bytes of any lengths, from all ranks to all."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np

from . import hub
from .channel import Channel
from .collectives import swap_large
from .frame import Header
from .key import Key

if TYPE_CHECKING:
    from .group import Group


def allgather_bytes(group: Group, channel: Channel, payload: bytes, key: Key) -> list[bytes]:
    """Return every rank's bytes, of any lengths."""
    if group.size < hub.MANY:
        found = _swap_bytes(group, channel, payload, key, group.peers, group.peers)
        return [payload if rank == group.rank else bytes(found[peer]) for rank, peer in enumerate(group.ranks)]
    first = group.ranks[0]
    if group.rank:
        _swap_bytes(group, channel, payload, key, (first,), ())
        return hub.part(memoryview(_swap_bytes(group, channel, b"", key, (), (first,))[first]))
    found = _swap_bytes(group, channel, b"", key, (), group.peers)
    parts = [payload, *(bytes(found[peer]) for peer in group.peers)]
    _swap_bytes(group, channel, hub.join(parts), key, group.peers, ())
    return parts


def _swap_bytes(
    group: Group, channel: Channel, payload: bytes, key: Key, writers: Collection[int], readers: Collection[int]
) -> dict[int, bytearray]:
    """Send bytes of any length to the writers; return what comes from each reader."""
    found: dict[int, bytearray] = {}

    def place(peer: int, header: Header) -> memoryview:
        return memoryview(found.setdefault(peer, bytearray(header.length)))

    swap_large(group, channel, np.frombuffer(payload, np.uint8), key, writers, readers, place)
    return found
