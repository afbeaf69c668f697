"""Overfitting: whether the held-out loss of a run rises, by a rule that a lucky dip and a wiggle do not meet.

The rule. After the lowest loss there must be a rising trend among the later evaluations that chance would show in less than one
of a hundred runs (Mann's and Kendall's test, exact), so at least five of them; and the last of them, as the median of three, must
have given back at least a twentieth of what had been learnt until then.

References
----------
Mann, Nonparametric tests against trend, 1945.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

import numpy as np

from scaleml.telemetry.curves import training_curve
from scaleml.telemetry.formatting import number
from scaleml.telemetry.history import History

if TYPE_CHECKING:
    from numpy.typing import NDArray

CHANCE: Final = 0.01
"""How rarely losses that only vary may look like rising ones."""
GIVEN_BACK: Final = 0.05
"""Share of what had been learnt that a rise must have given back."""


@final
@dataclass(frozen=True)
class Overfitting:
    """A held-out loss that rises.

    Parameters
    ----------
    evaluation : int
        Which evaluation had the lowest loss.
    epoch : float
        How many epochs had been trained by then; NaN if unknown.
    best, last : float
        The lowest loss and the last one.
    training_falls : bool or None
        Whether the loss of the rows trained on went on falling: then it is overfitting, else training itself goes wrong.
    """

    evaluation: int
    epoch: float
    best: float
    last: float
    training_falls: bool | None = None

    def __str__(self) -> str:
        if self.evaluation == 0:
            since = "from the first step on"
        elif math.isnan(self.epoch):
            since = f"since evaluation {self.evaluation}"
        else:
            since = f"since epoch {self.epoch:.2g}" if self.epoch < 10 else f"since epoch {self.epoch:.0f}"
        text = f"The held-out loss rises {since}: {number(self.best)} then, {number(self.last)} now"
        if self.training_falls:
            return f"{text}, while the training loss falls: the model learns its rows by heart"
        return f"{text}, and the training loss does not fall either" if self.training_falls is False else text


def find_overfitting(history: History) -> Overfitting | None:
    """Return since when the held-out loss of a run rises, or None; see the module for the rule."""
    evaluations = history.evaluations
    found = rise_of(evaluations["loss"])
    if found is None:
        return None
    best, losses = found, evaluations["loss"]
    return Overfitting(
        best,
        _epoch_at(history, float(evaluations["time"][best])),
        float(losses[best]),
        float(losses[-1]),
        _training_falls(history, float(evaluations["time"][best])),
    )


def rise_of(losses: Sequence[float] | NDArray[np.float64]) -> int | None:
    """Return the number of the evaluation since which losses rise, or None.

    Examples
    --------
    >>> rise_of([0.7, 0.4, 0.3, 0.32, 0.33, 0.35, 0.38, 0.4])
    2
    >>> rise_of([0.7, 0.4, 0.3, 0.31, 0.3, 0.31, 0.3, 0.31]) is None
    True
    """
    values = np.asarray(losses, np.float64)
    if not len(values) or not np.isfinite(values).any():
        return None
    best = int(np.nanargmin(np.where(np.isfinite(values), values, np.nan)))
    later = values[best + 1 :]
    if len(later) < 3 or not np.isfinite(later).all():  # what is no number any more is no overfitting
        return None
    learnt = float(values[0] - values[best]) if np.isfinite(values[0]) else 0.0
    given_back = float(np.median(later[-3:]) - values[best])
    # What was the best before the first step has learnt nothing that it could give back: then any rise counts.
    if given_back <= GIVEN_BACK * learnt or chance_of_trend(later) >= CHANCE:
        return None
    return best


def chance_of_trend(values: NDArray[np.float64]) -> float:
    """Return how often numbers in random order would rise at least as steadily as these: Mann's and Kendall's test, one-sided.

    Examples
    --------
    >>> chance_of_trend(np.arange(4.0))  # one order of 24
    0.041666666666666664
    """
    n = len(values)
    pairs = np.sign(values[None, :] - values[:, None])[np.triu_indices(n, 1)]
    falling = math.floor(float((pairs < 0).sum() + (pairs == 0).sum() / 2))
    if n > 40:
        mean, spread = n * (n - 1) / 4, math.sqrt(n * (n - 1) * (2 * n + 5) / 72)
        return 0.5 * math.erfc((mean - falling - 0.5) / spread / math.sqrt(2))
    # Of how many orders of n numbers so many pairs fall: those of n - 1, with the n-th put at each of n places.
    orders = np.ones(1)
    for size in range(2, n + 1):
        orders = np.convolve(orders, np.ones(size)) / size
    return float(orders[: falling + 1].sum())


def _epoch_at(history: History, time: float) -> float:
    """Return how many epochs the ranks that train had seen by a time on the training clock."""
    times, epochs = history["time"], history["epoch"]
    if not len(times):
        return math.nan
    order = np.argsort(times, kind="stable")
    return float(np.interp(time, times[order], np.maximum.accumulate(epochs[order]), left=0.0))


def _training_falls(history: History, since: float) -> bool | None:
    """Return whether the training loss is lower in the last third after a time than in the first; None for too few rows."""
    curve = training_curve(history)
    later = curve.loss[(curve.time > since) & np.isfinite(curve.loss)]
    part = len(later) // 3
    return bool(later[-part:].mean() < later[:part].mean()) if part else None
