"""The algorithms by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from scaleml.comm import collectives
from scaleml.comm import key as ops
from scaleml.comm.reducing import halving, hierarchical, ring


class Algorithm(NamedTuple):
    """How to sum, and the number under which frames say so: ranks that take different ways get `Mismatch`."""

    op: int
    allreduce: Callable[..., Any]


ALGORITHMS: Final = {
    "direct": Algorithm(ops.ALLREDUCE, collectives.allreduce),
    "ring": Algorithm(ops.RING, ring.allreduce),
    "halving": Algorithm(ops.HALVING, halving.allreduce),
    "hierarchical": Algorithm(ops.HIERARCHICAL, hierarchical.allreduce),
}
