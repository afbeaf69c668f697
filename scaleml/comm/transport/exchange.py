"""Exchange: every rank gives every other one something of its own: how compressed gradients travel."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scaleml.arrays import Array
from scaleml.comm.conventions import INLINE, bytes_of
from scaleml.comm.transport.channel import Channel
from scaleml.comm.transport.frame import Header, Key, Payload
from scaleml.comm.transport.membership import Membership
from scaleml.comm.transport.pump import Pump, Sink
from scaleml.comm.transport.streaming import fit


def exchange(
    members: Membership, channel: Channel, outgoing: Sequence[Array], places: Sequence[Array], key: Key
) -> None:
    """Send each rank its payload in one frame, receive its own into its place: small ones that are the same for all at once."""
    if members.size == 1:
        return
    mine = outgoing[0]
    if all(payload is mine for payload in outgoing) and max(place.nbytes for place in places) <= INLINE:
        for peer, view in zip(members.peers, channel.send_receive(members.peers, key, mine), strict=True):
            place = places[members.of_root[peer]]
            if len(view) != place.nbytes:
                raise members.context.other_length(peer, len(view), place.nbytes)
            place[:] = np.frombuffer(view, np.uint8)
        return
    unsent = set(members.peers)

    def supply(peer: int) -> tuple[bytes, Payload] | None:
        if peer not in unsent:
            return None
        unsent.discard(peer)
        payload = outgoing[members.of_root[peer]]
        return channel.header(key, payload), payload

    def place_of(peer: int, header: Header) -> memoryview:
        return fit(channel, peer, header, bytes_of(places[members.of_root[peer]]))

    sink = Sink(key, place_of, lambda peer, header: None)
    Pump(channel, key, set(members.peers), supply, dict.fromkeys(members.peers, 1), sink).run()
