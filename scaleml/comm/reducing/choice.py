"""Which algorithm sums a vector fastest, by its length and by where the ranks are."""

from __future__ import annotations

from collections.abc import Sequence

from scaleml.comm.link import INLINE

HALVING_FROM = 9
"""Ranks from which short vectors go by halving and doubling."""


def leader_of(hosts: Sequence[Sequence[bool]], ranks: Sequence[int], root: int) -> int:
    """Return the first of `ranks` that shares a host with `root`, itself one of them."""
    return min(other for other in ranks if hosts[root][other])


def placement(hosts: Sequence[Sequence[bool]], ranks: Sequence[int]) -> tuple[int, ...]:
    """Return how many of `ranks` each host has.

    Examples
    --------
    >>> placement([[True, True, False], [True, True, False], [False, False, True]], (0, 1, 2))
    (2, 1)
    """
    leaders = [leader_of(hosts, ranks, root) for root in ranks]
    return tuple(leaders.count(leader) for leader in sorted(set(leaders)))


def choose(nbytes: int, hosts: Sequence[int]) -> str:
    """Return the algorithm for a vector of `nbytes` bytes on hosts with so many ranks each.

    Examples
    --------
    >>> choose(4_000_000, (2,)), choose(4_000_000, (1, 1, 1)), choose(4_000_000, (2, 2))
    ('direct', 'ring', 'hierarchical')
    """
    if len(hosts) == 1 or sum(hosts) < 3:
        return "direct"
    if len(hosts) < sum(hosts):
        return "hierarchical"
    if nbytes <= INLINE:
        return "halving" if len(hosts) >= HALVING_FROM else "direct"
    return "ring"
