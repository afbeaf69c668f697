"""Costs against clocks, on machines that do other things, too."""

from __future__ import annotations

import math
from collections.abc import Callable

TRIES = 8


def agree(measure: Callable[[], tuple[float, float, float]]) -> list[tuple[float, float]]:
    """Measure a cost and what it should be until they are within 20% of each other; return what was found if they never are.

    Whatever else the machine does meanwhile only lengthens a run: compared are the quickest so far. A cost that is wrong is so
    each time.

    Parameters
    ----------
    measure : callable
        Returns the cost that is named of a disturbed run, that run's seconds, and those of an undisturbed one.
    """
    found = []
    named, disturbed, undisturbed = math.nan, math.inf, math.inf
    for _ in range(TRIES):
        cost, long, short = measure()
        named, disturbed = (cost, long) if long < disturbed else (named, disturbed)
        undisturbed = min(undisturbed, short)
        measured = disturbed - undisturbed
        if abs(named - measured) <= 0.2 * measured:
            return []
        found.append((named, measured))
    return found
