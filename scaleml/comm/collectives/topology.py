"""Topologies of an all-reduce: which one sums a vector fastest, by its length and by where the ranks are.

Milliseconds of one all-reduce (``python -m benchmarks topologies``: hosts of network namespaces, all on two cores):

================  =============  ========  =======  =========  ==============
ranks on hosts    bytes          direct    ring     halving    hierarchical
================  =============  ========  =======  =========  ==============
2 + 2             4 KB           0.86      1.63     0.69       **0.60**
2 + 2             256 KB         43.9      33.0     45.2       **22.0**
2 + 2             4 MB           763       533      778        **365**
4 + 4             256 KB         89.4      41.0     108        **22.1**
1 + 1 + 1         4 KB           0.47      0.80     **0.38**
1 + 1 + 1         4 MB           598       **468**  1161
1 + 1 + 1 + 1     4 KB           **2.3**   5.2      2.5
1 + 1 + 1 + 1     4 MB           648       **533**  652
1, on each of 6   4 KB           1.9       4.8      **1.5**
1, on each of 6   32 KB          14.0      19.6     **8.3**
1, on each of 8   4 KB           **4.0**   8.9      5.3
1, on each of 8   32 KB          19.4      12.7     **8.3**
1, on each of 8   256 KB         40.9      38.7     38.5
================  =============  ========  =======  =========  ==============

at 100 Mbit/s a host. Without a limit the order is the same, but for long vectors on 6 hosts, where the processor is what is
measured. On one host long vectors are in shared memory, where nothing beats the direct way; short ones go through one rank if there are
many. Milliseconds of processor time of all ranks together, for one all-reduce of as many processes on two busy cores:

=====  ======  ======= ================  =======
ranks  bytes   direct  everybody to all  halving
=====  ======  ======= ================  =======
8      4 KB    **0.9** 2.7               1.2
32     4 KB    **7.1** 41                12
64     4 KB    **14**  154               51
64     60 KB   **18**  310               73
64     800 KB  **63**  251               169
=====  ======  ======= ================  =======
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from scaleml.comm.conventions import INLINE

TOPOLOGIES: Final = ("direct", "ring", "halving", "hierarchical")
"""Ways to sum a vector over ranks."""
MIDDLING: Final = 16 * 1024
"""Bytes up to which a vector is sent to many at the cost of its header."""
RELAY_RANKS: Final = 6
"""Ranks from which longer vectors are better passed on than sent to everybody."""


def is_short(nbytes: int) -> bool:
    """Whether a vector of so many bytes is worth less than the message that brings it: it is sent whole."""
    return nbytes <= INLINE


def placement(hosts: Sequence[int]) -> tuple[int, ...]:
    """Return how many ranks each host has, by the number of each rank's host.

    Examples
    --------
    >>> placement((0, 0, 1))
    (2, 1)
    """
    return tuple(hosts.count(host) for host in sorted(set(hosts)))


def choose(nbytes: int, hosts: Sequence[int]) -> str:
    """Return the algorithm for a vector of `nbytes` bytes on hosts with so many ranks each.

    Examples
    --------
    >>> choose(4_000_000, (2,)), choose(4_000_000, (1, 1, 1)), choose(4_000_000, (2, 2))
    ('direct', 'ring', 'hierarchical')
    """
    ranks = sum(hosts)
    if len(hosts) == 1 or ranks == 2:
        return "direct"
    if len(hosts) < ranks:
        return "hierarchical"
    if not is_short(nbytes):
        return "ring"
    return "halving" if nbytes > MIDDLING and ranks >= RELAY_RANKS else "direct"
