"""By hosts: summed within each host, then between one leader a host, then given to the others of the host.

However many ranks a host has, its vector crosses the wire once. Where the ranks of a host share memory, they sum part by part
into their leader's, and read the result there.

Goyal et al., Accurate, large minibatch SGD, 2017, arXiv:1706.02677, section 4.
"""

from __future__ import annotations

from scaleml.arrays import Array
from scaleml.comm.collectives.ring import ring_allreduce
from scaleml.comm.collectives.topology import is_short
from scaleml.comm.communicator import Collectives


def hierarchical_allreduce(ranks: Collectives, x: Array) -> None:
    """Sum `x`, of one dimension, over the ranks, in place.

    Examples
    --------
    >>> import numpy as np
    >>> from scaleml.comm import simulated
    >>> def total(group):
    ...     x = np.full(2, group.rank + 1.0)
    ...     hierarchical_allreduce(group, x)
    ...     return x.tolist()
    >>> simulated.run(5, total, hosts=[0, 0, 0, 1, 1])[0]
    [15.0, 15.0]
    """
    hosts = ranks.hosts
    mates = [rank for rank, host in enumerate(hosts) if host == hosts[ranks.rank]]
    leaders = [hosts.index(host) for host in range(max(hosts) + 1)]
    within = ranks.subset(mates)
    within.reduce(x, 0)
    if ranks.rank == mates[0]:
        between = ranks.subset(leaders)
        if is_short(x.nbytes) or between.size == 2:
            between.allreduce(x)
        else:
            ring_allreduce(between, x)
    within.broadcast(x, 0)
