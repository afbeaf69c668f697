"""Costs against clocks, on machines that do other things, too."""

from __future__ import annotations

from collections.abc import Callable

TRIES = 8


def agree(measure: Callable[[], tuple[float, float]]) -> list[tuple[float, float]]:
    """Measure a cost and what it should be until they are within 20% of each other; return what was found if they never are.

    Whatever else the machine does meanwhile lengthens one of the runs by chance: another time it is another one. A cost
    that is wrong is so each time.
    """
    found = []
    for _ in range(TRIES):
        named, measured = measure()
        if abs(named - measured) <= 0.2 * measured:
            return []
        found.append((named, measured))
    return found
