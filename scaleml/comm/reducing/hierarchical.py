"""By hosts: summed in shared memory within each host, then between one leader a host, then shared again.

However many ranks a host has, its vector crosses the wire once. The ranks of a host sum part by part into their leader's memory,
where the others read the result.

Goyal et al., Accurate, large minibatch SGD, 2017, arXiv:1706.02677, section 4.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scaleml.comm import collectives, splitting
from scaleml.comm.channel import Channel
from scaleml.comm.key import Key
from scaleml.comm.link import INLINE
from scaleml.comm.reducing import ring
from scaleml.comm.reducing.choice import leader_of

if TYPE_CHECKING:
    from scaleml.comm.group import Group

_LEADERS = -1
"""What the leaders' group is made under; a host's is its leader's number."""


def allreduce(group: Group, channel: Channel, x: np.ndarray, key: Key) -> None:
    """Sum `x` over the ranks, in place."""
    within, leaders = _layers(group)
    if within.size == 1:
        _between(leaders, channel, x, key)
        return
    inner = key._replace(group=within.number)
    if x.nbytes <= INLINE or not _share(within, leaders, channel, x, key, inner):
        collectives.allreduce(within, channel, x, inner)
        _between(leaders, channel, x, key)
        collectives.broadcast(within, channel, x, inner, 0)


def _share(within: Group, leaders: Group | None, channel: Channel, x: np.ndarray, key: Key, inner: Key) -> bool:
    """Do it in shared memory; False if somebody has no room there."""
    slots = collectives.ring_doorbells(within, channel, x, inner, x.nbytes // within.size)
    if slots is None:
        return False
    low, high = within.part(within.rank, x.size)
    collectives.sum_into(within, slots[0][low:high], [slot[low:high] for slot in slots])
    collectives.leave(within, channel, inner, (high - low) * x.itemsize)
    _between(leaders, channel, slots[0], key)
    collectives.leave(within, channel, inner)
    if not np.may_share_memory(slots[0], x):
        x[:] = slots[0]
    collectives.leave(within, channel, inner)
    collectives.count_shared(channel, x.nbytes, 0, within.size)
    return True


def _between(leaders: Group | None, channel: Channel, x: np.ndarray, key: Key) -> None:
    if leaders is None:
        return
    direct = x.nbytes <= INLINE or leaders.size == 2
    algorithm = collectives.allreduce if direct else ring.allreduce
    algorithm(leaders, channel, x, key._replace(group=leaders.number))


def _layers(group: Group) -> tuple[Group, Group | None]:
    """Return the group of this rank's host, and if this rank leads it, that of all leaders; both made once."""
    if group.layers is None:
        leads = [leader_of(group.mesh.hosts, group.ranks, root) for root in group.ranks]
        mine = leads[group.rank]
        mates = [root for root, leader in zip(group.ranks, leads, strict=True) if leader == mine]
        leaders = _part(group, sorted(set(leads)), _LEADERS) if mine == group.mesh.rank else None
        group.layers = _part(group, mates, mine), leaders
    return group.layers


def _part(group: Group, ranks: list[int], color: int) -> Group:
    """Make a group of ranks that all know who they are: nothing need be sent."""
    return type(group)(group.mesh, ranks, splitting.number(group.number, 0, color))
