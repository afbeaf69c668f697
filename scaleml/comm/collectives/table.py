"""The table of all-reduce algorithms, by the names of their topologies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from scaleml.arrays import Array
from scaleml.comm.collectives.halving import halving_allreduce
from scaleml.comm.collectives.hierarchical import hierarchical_allreduce
from scaleml.comm.collectives.ring import ring_allreduce
from scaleml.comm.communicator import Collectives

Algorithm = Callable[[Collectives, Array], None]

ALGORITHMS: Final[dict[str, Algorithm]] = {
    "ring": ring_allreduce,
    "halving": halving_allreduce,
    "hierarchical": hierarchical_allreduce,
}
"""For each of `topology.TOPOLOGIES` but "direct", which is the communicator's own way."""
