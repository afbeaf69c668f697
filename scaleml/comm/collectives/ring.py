"""The ring: each rank talks to its two neighbours alone, and sends no more than any other algorithm.

A part of the vector goes round once, summed on its way, then once more as the sum. It is cut into blocks that are handed on
as soon as they are summed, so that the wire is never idle. The order of each sum is that of the ring, from the
part's owner on.

Patarasuk and Yuan, Bandwidth optimal all-reduce algorithms for clusters of workstations, 2009.
"""

from __future__ import annotations

from scaleml.arrays import Array
from scaleml.comm.communicator import Collectives
from scaleml.comm.conventions import blocks


def ring_allreduce(ranks: Collectives, x: Array) -> None:
    """Sum `x`, of one dimension, over the ranks, in place.

    Examples
    --------
    >>> import numpy as np
    >>> from scaleml.comm import simulated
    >>> def total(group):
    ...     x = np.full(4, group.rank + 1.0)
    ...     ring_allreduce(group, x)
    ...     return x.tolist()
    >>> simulated.run(3, total)[0]
    [6.0, 6.0, 6.0, 6.0]
    """
    size, rank = ranks.size, ranks.rank
    if size == 1:
        return
    parts = [blocks(x, *ranks.part(owner, x.size)) for owner in range(size)]
    turns = range(2 * (size - 1))  # in turn t we give part (rank - t) and take part (rank - t - 1), which we give next
    taken = [parts[(rank - turn - 1) % size] for turn in turns]
    ranks.send_receive(
        [block for turn in turns for block in parts[(rank - turn) % size]],
        (rank + 1) % size,
        [block for part in taken for block in part],
        (rank - 1) % size,
        added=sum(len(part) for part in taken[: size - 1]),
        ahead=len(parts[rank]),
    )
