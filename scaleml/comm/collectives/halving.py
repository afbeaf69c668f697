"""Halving and doubling: as many exchanges as the number of ranks has binary digits, twice for a long vector.

Short vectors are exchanged whole with partners at doubling distances. Of long ones, partners exchange halves, then quarters of
what they kept, and so on; the sums go back the same way. Where the number of ranks is no power of two, the ranks beyond the largest one
first give all they have to a partner, and get the sum from it in the end.

Rabenseifner, Optimization of collective reduction operations, ICCS 2004.
"""

from __future__ import annotations

from scaleml.arrays import Array
from scaleml.comm.collectives.direct import send_receive_large
from scaleml.comm.conventions import bytes_of
from scaleml.comm.transport.channel import Channel
from scaleml.comm.transport.frame import INLINE
from scaleml.comm.transport.key import Key
from scaleml.comm.transport.membership import Membership


def halving_allreduce(members: Membership, channel: Channel, x: Array, key: Key) -> None:
    """Sum `x` over the ranks, in place."""
    rank = members.rank
    power = 1 << (members.size.bit_length() - 1)
    if rank >= power:
        _send(members, channel, x, key, rank - power)
        _receive(members, channel, x, key, rank - power)
        return
    room = members.memory.scratch("half", x.dtype, x.size)
    guest = rank + power < members.size
    if guest:
        _receive(members, channel, room, key, rank + power)
        x += room
    if x.nbytes <= INLINE:
        distance = 1
        while distance < power:
            _exchange(members, channel, x, room, key, rank ^ distance)
            x += room
            distance *= 2
    else:
        _halve_and_double(members, channel, x, room, key, power)
    if guest:
        _send(members, channel, x, key, rank + power)


def _halve_and_double(members: Membership, channel: Channel, x: Array, room: Array, key: Key, power: int) -> None:
    rank, low, high = members.rank, 0, x.size
    halves = []
    distance = power // 2
    while distance:
        middle = (low + high) // 2
        given = slice(middle, high) if rank < rank ^ distance else slice(low, middle)
        kept = slice(low, middle) if rank < rank ^ distance else slice(middle, high)
        _exchange(members, channel, x[given], room[kept], key, rank ^ distance)
        x[kept] += room[kept]
        halves.append((given, kept, rank ^ distance))
        low, high = kept.start, kept.stop
        distance //= 2
    for given, kept, partner in reversed(halves):
        _exchange(members, channel, x[kept], x[given], key, partner)


def _exchange(members: Membership, channel: Channel, payload: Array, place: Array, key: Key, partner: int) -> None:
    peer = members.ranks[partner]
    send_receive_large(members, channel, payload, key, (peer,), (peer,), lambda peer, header: bytes_of(place))


def _send(members: Membership, channel: Channel, x: Array, key: Key, partner: int) -> None:
    send_receive_large(members, channel, x, key, (members.ranks[partner],), (), lambda peer, header: memoryview(b""))


def _receive(members: Membership, channel: Channel, place: Array, key: Key, partner: int) -> None:
    send_receive_large(
        members, channel, place, key, (), (members.ranks[partner],), lambda peer, header: bytes_of(place)
    )
