"""By hosts: summed in shared memory within each host, then between one leader a host, then shared again.

However many ranks a host has, its vector crosses the wire once. The ranks of a host sum part by part into their leader's memory,
where the others read the result.

Goyal et al., Accurate, large minibatch SGD, 2017, arXiv:1706.02677, section 4.
"""

from __future__ import annotations

import numpy as np

from scaleml.arrays import Array
from scaleml.comm.collectives import direct
from scaleml.comm.collectives.ring import ring_allreduce
from scaleml.comm.conventions import number_of
from scaleml.comm.transport.channel import Channel
from scaleml.comm.transport.frame import INLINE
from scaleml.comm.transport.key import Key
from scaleml.comm.transport.membership import Membership

_LEADERS = -1
"""What the leaders' group is made under; a host's is its leader's number."""


def hierarchical_allreduce(members: Membership, channel: Channel, x: Array, key: Key) -> None:
    """Sum `x` over the ranks, in place."""
    within, leaders = _layers(members)
    if within.size == 1:
        _between(leaders, channel, x, key)
        return
    inner = key._replace(group=within.number)
    if x.nbytes <= INLINE or not _share(within, leaders, channel, x, key, inner):
        direct.direct_allreduce(within, channel, x, inner)
        _between(leaders, channel, x, key)
        direct.broadcast(within, channel, x, inner, 0)


def _share(within: Membership, leaders: Membership | None, channel: Channel, x: Array, key: Key, inner: Key) -> bool:
    """Do it in shared memory; False if somebody has no room there."""
    slots = direct.share_slots(within, channel, x, inner, x.nbytes // within.size)
    if slots is None:
        return False
    low, high = within.part(within.rank, x.size)
    direct.sum_into(within, slots[0][low:high], [slot[low:high] for slot in slots])
    direct.leave(within, channel, inner, (high - low) * x.itemsize)
    _between(leaders, channel, slots[0], key)
    direct.leave(within, channel, inner)
    if not np.may_share_memory(slots[0], x):
        x[:] = slots[0]
    direct.leave(within, channel, inner)
    direct.count_shared(channel, x.nbytes, 0, within.size)
    return True


def _between(leaders: Membership | None, channel: Channel, x: Array, key: Key) -> None:
    if leaders is None:
        return
    straight = x.nbytes <= INLINE or leaders.size == 2
    allreduce = direct.direct_allreduce if straight else ring_allreduce
    allreduce(leaders, channel, x, key._replace(group=leaders.number))


def _layers(members: Membership) -> tuple[Membership, Membership | None]:
    """Return the group of this rank's host, and if this rank leads it, that of all leaders; both made once."""
    if members.layers is None:
        ranks, hosts = members.ranks, members.hosts
        leads = [min(r for r, h in zip(ranks, hosts, strict=True) if h == host) for host in hosts]
        mine = leads[members.rank]
        mates = [root for root, leader in zip(ranks, leads, strict=True) if leader == mine]
        leaders = _part(members, sorted(set(leads)), _LEADERS) if mine == members.context.rank else None
        members.layers = _part(members, mates, mine), leaders
    return members.layers


def _part(members: Membership, ranks: list[int], color: int) -> Membership:
    """Make a group of ranks that all know who they are: nothing need be sent."""
    return Membership(members.mesh, ranks, number_of(members.number, 0, color))
