"""Fault plans: makers of whole lists of faults."""

from __future__ import annotations

import random

from scaleml.checks import check_integer
from scaleml.faults.rank import Slow


def rotating(workers: int, steps: int, every: int, factor: float, seed: int = 0) -> tuple[Slow, ...]:
    """Make another rank slow each few steps: no rank is slow for good, but always one of them is.

    ::

        for each ``every`` steps:  r <- any rank but the last one;  r's gradients take ``factor`` times as long

    Parameters
    ----------
    workers : int
        Ranks that train, at least 2.
    steps : int
        How many steps the plan covers.
    every : int
        Steps after which it is another one's turn.
    factor : float
        How many times as long.
    seed : int
        Decides whose turn it is: the same seed gives the same plan.

    Returns
    -------
    tuple of Slow
        In the order of their steps.

    Raises
    ------
    ValueError
        For fewer than 2 workers, or a value that breaks its rule.

    Examples
    --------
    >>> from scaleml import faults
    >>> [(slow.rank, slow.step, slow.until) for slow in faults.rotating(3, steps=30, every=10, factor=4, seed=1)]
    [(0, 0, 10), (1, 10, 20), (2, 20, 30)]
    """
    workers = check_integer("workers", workers, 2, rule="at least 2 ranks, to take turns")
    steps = check_integer("steps", steps)
    every = check_integer("every", every, 1, rule="at least 1 step, after which it is another one's turn")
    order = random.Random(seed)
    plan: list[Slow] = []
    for start in range(0, steps, every):
        others = [rank for rank in range(workers) if not plan or rank != plan[-1].rank]
        plan.append(Slow(order.choice(others), factor, start, min(start + every, steps)))
    return tuple(plan)
