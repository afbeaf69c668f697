"""Halving and doubling: as many exchanges as the number of ranks has binary digits, twice for a long vector.

Short vectors are exchanged whole with partners at doubling distances. Of long ones, partners exchange halves, then quarters of
what they kept, and so on; the sums go back the same way. Where the number of ranks is no power of two, the ranks beyond the largest one
first give all they have to a partner, and get the sum from it in the end.

Rabenseifner, Optimization of collective reduction operations, ICCS 2004.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scaleml.comm.channel import Channel
from scaleml.comm.collectives import bytes_of, swap_large
from scaleml.comm.key import Key
from scaleml.comm.link import INLINE

if TYPE_CHECKING:
    from scaleml.comm.group import Group


def allreduce(group: Group, channel: Channel, x: np.ndarray, key: Key) -> None:
    """Sum `x` over the ranks, in place."""
    rank = group.rank
    power = 1 << (group.size.bit_length() - 1)
    if rank >= power:
        _send(group, channel, x, key, rank - power)
        _receive(group, channel, x, key, rank - power)
        return
    room = group.memory.scratch("half", x.dtype, x.size)
    guest = rank + power < group.size
    if guest:
        _receive(group, channel, room, key, rank + power)
        x += room
    if x.nbytes <= INLINE:
        distance = 1
        while distance < power:
            _exchange(group, channel, x, room, key, rank ^ distance)
            x += room
            distance *= 2
    else:
        _halve_and_double(group, channel, x, room, key, power)
    if guest:
        _send(group, channel, x, key, rank + power)


def _halve_and_double(group: Group, channel: Channel, x: np.ndarray, room: np.ndarray, key: Key, power: int) -> None:
    rank, low, high = group.rank, 0, x.size
    halves = []
    distance = power // 2
    while distance:
        middle = (low + high) // 2
        given = slice(middle, high) if rank < rank ^ distance else slice(low, middle)
        kept = slice(low, middle) if rank < rank ^ distance else slice(middle, high)
        _exchange(group, channel, x[given], room[kept], key, rank ^ distance)
        x[kept] += room[kept]
        halves.append((given, kept, rank ^ distance))
        low, high = kept.start, kept.stop
        distance //= 2
    for given, kept, partner in reversed(halves):
        _exchange(group, channel, x[kept], x[given], key, partner)


def _exchange(group: Group, channel: Channel, gift: np.ndarray, place: np.ndarray, key: Key, partner: int) -> None:
    peer = group.ranks[partner]
    swap_large(group, channel, gift, key, (peer,), (peer,), lambda peer, header: bytes_of(place))


def _send(group: Group, channel: Channel, x: np.ndarray, key: Key, partner: int) -> None:
    swap_large(group, channel, x, key, (group.ranks[partner],), (), lambda peer, header: memoryview(b""))


def _receive(group: Group, channel: Channel, place: np.ndarray, key: Key, partner: int) -> None:
    swap_large(group, channel, place, key, (), (group.ranks[partner],), lambda peer, header: bytes_of(place))
