"""The table of all-reduce algorithms, by the names of their topologies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from scaleml.arrays import Array
from scaleml.comm.collectives.direct import direct_allreduce
from scaleml.comm.collectives.halving import halving_allreduce
from scaleml.comm.collectives.hierarchical import hierarchical_allreduce
from scaleml.comm.collectives.ring import ring_allreduce
from scaleml.comm.transport import key
from scaleml.comm.transport.channel import Channel
from scaleml.comm.transport.membership import Membership


class Algorithm(NamedTuple):
    """How to sum, and the number under which frames say so: ranks that take different ways get `Mismatch`."""

    op: int
    allreduce: Callable[[Membership, Channel, Array, key.Key], None]


ALGORITHMS: Final = {
    "direct": Algorithm(key.ALLREDUCE, direct_allreduce),
    "ring": Algorithm(key.RING, ring_allreduce),
    "halving": Algorithm(key.HALVING, halving_allreduce),
    "hierarchical": Algorithm(key.HIERARCHICAL, hierarchical_allreduce),
}
"""For each of `topology.TOPOLOGIES` its algorithm."""
