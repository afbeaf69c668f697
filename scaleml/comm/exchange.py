"""Every rank gives every other one something of its own: how compressed gradients travel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .channel import Channel
from .collectives import bytes_of, fit
from .frame import Header
from .key import Key
from .link import INLINE
from .pump import Pump, Sink

if TYPE_CHECKING:
    from .group import Group


def exchange(
    group: Group, channel: Channel, gifts: Sequence[np.ndarray], places: Sequence[np.ndarray], key: Key
) -> None:
    """Send each rank its gift in one frame, receive its own into its place: small ones that are the same for all at once."""
    if group.size == 1:
        return
    mine = gifts[0]
    if all(gift is mine for gift in gifts) and max(place.nbytes for place in places) <= INLINE:
        header = group.header(key, mine.nbytes, channel.checksum(mine))
        for peer, view in zip(group.peers, channel.swap(group.peers, header, mine, key), strict=True):
            places[group.of_root[peer]][:] = np.frombuffer(view, np.uint8)
        return
    unsent = set(group.peers)

    def supply(peer: int) -> tuple[bytes, Any] | None:
        if peer not in unsent:
            return None
        unsent.discard(peer)
        gift = gifts[group.of_root[peer]]
        return group.header(key, gift.nbytes, channel.checksum(gift)), gift

    def place(peer: int, header: Header) -> memoryview:
        return fit(group, peer, header, bytes_of(places[group.of_root[peer]]))

    sink = Sink(key, place, lambda peer, header: None)
    Pump(channel, key, set(group.peers), supply, dict.fromkeys(group.peers, 1), sink).run()
