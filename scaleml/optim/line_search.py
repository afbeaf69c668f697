"""Line search after Moré and Thuente: a step along a direction that satisfies the strong Wolfe conditions, one evaluation at a time."""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass, fields
from typing import Final, Literal, NamedTuple, Self, final

from scaleml.arrays import Array

__all__ = ["LineSearch"]

DECREASE: Final = 1e-3
"""Of the first slope: at least so much must the loss fall with the step."""
CURVATURE: Final = 0.9
"""Of the first slope: at most so much of it may be left."""
NARROW: Final = 0.1
"""An interval that is narrower than this share of its upper end is not cut any further."""
LONGEST: Final = 1e10
_GROW_LEAST, _GROW_MOST, _SHRINK = 1.1, 4.0, 0.66


class _Point(NamedTuple):
    """A step, and the loss and its slope there."""

    step: float
    loss: float
    slope: float

    def towards(self, other: _Point, share: float) -> float:
        """Return the step so far on the way to another."""
        return self.step + share * (other.step - self.step)

    def tilted(self, slope: float) -> _Point:
        """Return it for the loss minus the line of this slope."""
        return _Point(self.step, self.loss - self.step * slope, self.slope - slope)


@final
@dataclass
class LineSearch:
    """A search under way: all that it knows, as numbers.

    The interval between the best step so far and the other end holds a minimum once `bracketed`; trial steps are minima of cubics and
    parabolas through the two ends and the last trial.

    Parameters
    ----------
    loss, slope : float
        At the start; the slope is negative.
    step : float
        The next trial.
    low, high : float
        Where the trial may lie.

    References
    ----------
    Moré and Thuente, Line search algorithms with guaranteed sufficient decrease, ACM TOMS 20, 1994.

    Examples
    --------
    The minimum of ``(s - 3) ** 2``:

    >>> search, state = LineSearch.begin(9.0, -6.0, 1.0), "go on"
    >>> while state == "go on":
    ...     state = search.tell((search.step - 3) ** 2, 2 * (search.step - 3))
    >>> state, search.step
    ('done', 1.0)
    """

    loss: float
    slope: float
    step: float
    low: float
    high: float
    best_step: float
    best_loss: float
    best_slope: float
    other_step: float
    other_loss: float
    other_slope: float
    width: float
    width_before: float
    bracketed: float = 0.0
    first_stage: float = 1.0
    evaluations: float = 0.0

    @classmethod
    def begin(cls, loss: float, slope: float, step: float) -> Self:
        """Start at a loss and a negative slope, with a first trial."""
        ends = (0.0, loss, slope, 0.0, loss, slope)
        return cls(loss, slope, step, 0.0, step + _GROW_MOST * step, *ends, LONGEST, 2 * LONGEST)

    @classmethod
    def load(cls, values: Array) -> Self:
        """Return the search that `save` has written."""
        return cls(*values.tolist())

    def save(self, out: Array) -> None:
        """Write all of it into ``out``, float64 of shape (`ITEMS`,)."""
        out[:] = astuple(self)

    def tell(self, loss: float, slope: float) -> Literal["go on", "done"]:
        """Take in loss and slope at `step`; ``"done"`` where it is to be taken, else `step` is the next trial.

        A step that satisfies the conditions is taken, and so is one that cannot be improved upon any more.
        """
        self.evaluations += 1
        wanted = DECREASE * self.slope
        at_most = self.loss + self.step * wanted
        if self.first_stage and loss <= at_most and slope >= 0:
            self.first_stage = 0.0
        if (loss <= at_most and abs(slope) <= -CURVATURE * self.slope) or self._is_stuck(loss, slope, at_most, wanted):
            return "done"
        trial = _Point(self.step, loss, slope)
        # While no step is known that falls enough, the loss minus what it has to fall decides.
        tilt = wanted if self.first_stage and at_most < loss <= self.best_loss else 0.0
        self._move(trial, tilt)
        self._narrow()
        return "go on"

    def _is_stuck(self, loss: float, slope: float, at_most: float, wanted: float) -> bool:
        if self.bracketed:
            outside = not self.low < self.step < self.high
            return outside or self.high - self.low <= NARROW * self.high
        return self.step == LONGEST and loss <= at_most and slope <= wanted

    def _move(self, trial: _Point, tilt: float) -> None:
        """Replace an end of the interval by the trial, and choose the next one."""
        best = _Point(self.best_step, self.best_loss, self.best_slope).tilted(tilt)
        other = _Point(self.other_step, self.other_loss, self.other_slope).tilted(tilt)
        trial = trial.tilted(tilt)
        following = self._choose(best, other, trial)
        if trial.loss > best.loss:
            other = trial
        else:
            if trial.slope * best.slope < 0:
                other = best
            best = trial
        self.best_step, self.best_loss, self.best_slope = best.tilted(-tilt)
        self.other_step, self.other_loss, self.other_slope = other.tilted(-tilt)
        self.step = following

    def _choose(self, best: _Point, other: _Point, trial: _Point) -> float:
        """Return the next trial step, by the paper's four cases; note whether a minimum lies between the ends."""
        if trial.loss > best.loss:  # 1: higher, so there is a minimum in between
            self.bracketed = 1.0
            cubic, parabola = best.towards(trial, _cubic(best, trial)), best.towards(trial, _parabola(best, trial))
            near = abs(cubic - best.step) < abs(parabola - best.step)
            return cubic if near else cubic + (parabola - cubic) / 2
        if trial.slope * best.slope < 0:  # 2: lower, and it rises again
            self.bracketed = 1.0
            found = (trial.towards(best, share) for share in (_secant(trial, best), _cubic(trial, best)))
            return max(found, key=lambda step: abs(step - trial.step))
        if abs(trial.slope) < abs(best.slope):  # 3: lower, and flatter
            return self._beyond(best, other, trial)
        if self.bracketed:  # 4: lower, and no flatter
            return trial.towards(other, _cubic(trial, other))
        return self.high if trial.step > best.step else self.low

    def _beyond(self, best: _Point, other: _Point, trial: _Point) -> float:
        """Return a step beyond the trial: the cubic's, where it has a minimum there, or the secant's."""
        share, secant = _cubic(trial, best, ahead=True), trial.towards(best, _secant(trial, best))
        end = self.high if trial.step > best.step else self.low
        cubic = trial.towards(best, share) if share < 0 else end
        nearer, farther = sorted((cubic, secant), key=lambda step: abs(step - trial.step))
        if not self.bracketed:
            return min(self.high, max(self.low, farther))
        limit = trial.step + _SHRINK * (other.step - trial.step)
        return min(limit, nearer) if trial.step > best.step else max(limit, nearer)

    def _narrow(self) -> None:
        """Halve an interval that shrinks too slowly, and keep the trial where it may lie."""
        if self.bracketed:
            width = abs(self.other_step - self.best_step)
            if width >= _SHRINK * self.width_before:
                self.step = self.best_step + 0.5 * (self.other_step - self.best_step)
            self.width_before, self.width = self.width, width
            self.low, self.high = sorted((self.best_step, self.other_step))
        else:
            self.low = self.step + _GROW_LEAST * (self.step - self.best_step)
            self.high = self.step + _GROW_MOST * (self.step - self.best_step)
        self.step = min(LONGEST, max(0.0, self.step))
        if self.bracketed and (not self.low < self.step < self.high or self.high - self.low <= NARROW * self.high):
            self.step = self.best_step


ITEMS: Final = len(fields(LineSearch))


def _cubic(start: _Point, end: _Point, *, ahead: bool = False) -> float:
    """Return where the cubic through two points has its minimum, as a share of the way from ``start``; ``ahead``: if it has one."""
    theta = 3 * (start.loss - end.loss) / (end.step - start.step) + start.slope + end.slope
    scale = max(abs(theta), abs(start.slope), abs(end.slope)) or 1.0
    root = scale * math.sqrt(max(0.0, (theta / scale) ** 2 - start.slope / scale * (end.slope / scale)))
    root = root if end.step > start.step else -root
    if ahead and not root:
        return math.inf
    below = ((root - start.slope) + root) + end.slope
    return ((root - start.slope) + theta) / below if below else math.inf


def _parabola(start: _Point, end: _Point) -> float:
    """The same of the parabola through both losses with the slope at ``start``."""
    return start.slope / ((start.loss - end.loss) / (end.step - start.step) + start.slope) / 2


def _secant(start: _Point, end: _Point) -> float:
    """The same of the parabola with both slopes."""
    return start.slope / (start.slope - end.slope)
