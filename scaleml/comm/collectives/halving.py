"""Halving and doubling: as many exchanges as the number of ranks has binary digits, twice for a long vector.

Short vectors are exchanged whole with partners at doubling distances. Of long ones, partners exchange halves, then quarters of
what they kept, and so on; the sums go back the same way. Where the number of ranks is no power of two, the ranks beyond the largest one
first give all they have to a partner, and get the sum from it in the end.

Rabenseifner, Optimization of collective reduction operations, ICCS 2004.
"""

from __future__ import annotations

from scaleml.arrays import Array
from scaleml.comm.collectives.topology import is_short
from scaleml.comm.communicator import Collectives


def halving_allreduce(ranks: Collectives, x: Array) -> None:
    """Sum `x`, of one dimension, over the ranks, in place.

    Examples
    --------
    >>> import numpy as np
    >>> from scaleml.comm import simulated
    >>> def total(group):
    ...     x = np.full(2, group.rank + 1.0)
    ...     halving_allreduce(group, x)
    ...     return x.tolist()
    >>> simulated.run(5, total)[0]
    [15.0, 15.0]
    """
    power = 1 << (ranks.size.bit_length() - 1)
    whole = [x]  # not in blocks: nothing is handed on before all of it is summed
    guest, host = ranks.rank + power, ranks.rank - power
    if host >= 0:
        ranks.send_receive(whole, host, [], host)
        ranks.send_receive([], host, whole, host)
        return
    if guest < ranks.size:
        ranks.send_receive([], guest, whole, guest, added=1)
    if is_short(x.nbytes):
        for distance in (1 << digit for digit in range(power.bit_length() - 1)):
            partner = ranks.rank ^ distance
            ranks.send_receive([x.copy()], partner, [x], partner, added=1)  # a copy: `x` changes while it is sent
    else:
        _halve_and_double(ranks, x, power)
    if guest < ranks.size:
        ranks.send_receive(whole, guest, [], guest)


def _halve_and_double(ranks: Collectives, x: Array, power: int) -> None:
    rank, low, high = ranks.rank, 0, x.size
    halves = []
    distance = power // 2
    while distance:
        partner, middle = rank ^ distance, (low + high) // 2
        lower, upper = [x[low:middle]], [x[middle:high]]
        kept, given = (lower, upper) if rank < partner else (upper, lower)
        low, high = (low, middle) if rank < partner else (middle, high)
        ranks.send_receive(given, partner, kept, partner, added=1)
        halves.append((given, kept, partner))
        distance //= 2
    for given, kept, partner in reversed(halves):
        ranks.send_receive(kept, partner, given, partner)
