"""Time: the clock that a rank measures by, the wall's or a virtual one. Nobody else imports `time`.

It stands beside `arrays`, below everything: links measure by it as much as loops do.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, Protocol, final


class Clock(Protocol):
    """What tells a rank how late it is, and lets it wait.

    Invariants: ``now`` never goes back; two readings of one clock differ by the seconds between them; readings of different
    clocks mean nothing to each other; after ``sleep(s)`` ``now`` is at least ``s`` later.

    Attributes
    ----------
    now : callable
        Returns seconds since some fixed moment. An attribute, so that hot loops may keep it: one call of C for the wall's.
    """

    now: Callable[[], float]

    def sleep(self, seconds: float) -> None:
        """Do nothing for so many seconds."""


@final
class WallClock:
    """The system's monotonic clock.

    Examples
    --------
    >>> begin = WALL.now()
    >>> WALL.sleep(0.001)
    >>> WALL.now() - begin >= 0.001
    True
    """

    now = staticmethod(time.perf_counter)

    def sleep(self, seconds: float) -> None:
        """Give the processor to others for so many seconds."""
        time.sleep(seconds)


WALL: Final[Clock] = WallClock()
"""The clock of everything that is not simulated."""

cpu_seconds: Final[Callable[[], float]] = time.thread_time
"""Seconds of a processor that the calling thread has used."""
