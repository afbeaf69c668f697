"""Lane: one contender in the lab, over all its rounds. The live round's curve before the band of those that are over."""

from __future__ import annotations

from typing import Final, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from scaleml.lab.trace import Trace
from scaleml.telemetry.curves import Curve, median_curve
from scaleml.telemetry.run_like import RunLike

BAND: Final = 60
"""Points of a band."""

Key = tuple[str, int]
"""A comparison and one of its contenders; a run that stands alone has a key of its own."""


class Band(NamedTuple):
    """Between what losses several rounds were: all arrays are (n,)."""

    x: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


NO_BAND: Final = Band(np.empty(0), np.empty(0), np.empty(0))


def key_of(run: RunLike, position: int) -> Key:
    """Return whose lane a run belongs to."""
    return ("", position) if run.place is None else (run.place.comparison, run.place.entry)


@final
class Lane:
    """Follows the runs of one contender, one after the other.

    Parameters
    ----------
    key : (str, int)
    run : Run
        Its first.

    Attributes
    ----------
    trace : Trace
        Of its newest run.
    over : list of Curve
        The losses of the rounds that went to their end.
    runs : int
        How many runs it has had.
    shown : Curve or None
        The losses as they were drawn last.
    """

    def __init__(self, key: Key, run: RunLike) -> None:
        self.key = key
        self.trace = Trace(run)
        self.over: list[Curve] = []
        self.runs = 1
        self.shown: Curve | None = None
        self._counted = False

    def follow(self, run: RunLike) -> None:
        """Go on with the next round."""
        self._count()
        self.trace = Trace(run)
        self.runs += 1
        self._counted = False

    def look(self) -> bool:
        """Take in what is new; whether there was anything."""
        if self.trace.complete:
            return False
        return self.trace.look()

    def rest(self) -> None:
        """Count the newest round, too, where it is over: no other follows."""
        self._count()

    def _count(self) -> None:
        if self._counted:
            return
        if not self.trace.complete:  # a short run may have begun and ended between two looks
            self.trace.look()
        if not self.trace.now.over:
            return
        self._counted = True
        if self.trace.now.state in ("finished", "stopped") and not getattr(self.trace.run, "skipped", False):
            self.over.append(self.trace.losses())

    def losses(self) -> Curve:
        """The loss of the round that lives; between rounds and afterwards the median of all."""
        if self.trace.now.over and self._counted and self.over:
            self.shown = median_curve(self.over, BAND)
        else:
            self.shown = self.trace.curve = self.trace.losses()
        return self.shown

    def band(self, across: str) -> Band:
        """Between what losses its rounds were, across ``"time"`` or ``"samples"``; nothing of one round."""
        curves = [curve for curve in self.over if len(curve.loss) > 1]
        if len(curves) < 2:
            return NO_BAND
        ends = [getattr(curve, across) for curve in curves]
        at = np.linspace(max(float(end[0]) for end in ends), min(float(end[-1]) for end in ends), BAND)
        losses = np.array([np.interp(at, getattr(curve, across), curve.loss) for curve in curves])
        return Band(at, losses.min(axis=0), losses.max(axis=0))
