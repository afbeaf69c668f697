"""Exchange: every rank gives every other one something of its own: how compressed gradients travel."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scaleml.arrays import Array
from scaleml.comm.collectives.direct import fit
from scaleml.comm.conventions import bytes_of
from scaleml.comm.transport.channel import Channel
from scaleml.comm.transport.frame import INLINE, Header, Payload
from scaleml.comm.transport.key import Key
from scaleml.comm.transport.membership import Membership
from scaleml.comm.transport.pump import Pump, Sink


def exchange(
    members: Membership, channel: Channel, outgoing: Sequence[Array], places: Sequence[Array], key: Key
) -> None:
    """Send each rank its payload in one frame, receive its own into its place: small ones that are the same for all at once."""
    if members.size == 1:
        return
    mine = outgoing[0]
    if all(payload is mine for payload in outgoing) and max(place.nbytes for place in places) <= INLINE:
        header = members.header(key, mine.nbytes, channel.checksum(mine))
        for peer, view in zip(members.peers, channel.send_receive(members.peers, header, mine, key), strict=True):
            places[members.of_root[peer]][:] = np.frombuffer(view, np.uint8)
        return
    unsent = set(members.peers)

    def supply(peer: int) -> tuple[bytes, Payload] | None:
        if peer not in unsent:
            return None
        unsent.discard(peer)
        payload = outgoing[members.of_root[peer]]
        return members.header(key, payload.nbytes, channel.checksum(payload)), payload

    def place(peer: int, header: Header) -> memoryview:
        return fit(members, peer, header, bytes_of(places[members.of_root[peer]]))

    sink = Sink(key, place, lambda peer, header: None)
    Pump(channel, key, set(members.peers), supply, dict.fromkeys(members.peers, 1), sink).run()
