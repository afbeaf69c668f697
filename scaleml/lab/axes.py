"""Axes of the live charts: round ticks, a range that fits, and one horizontal axis for all that share it."""

from __future__ import annotations

import math
from typing import Any, Protocol, final

import bqplot
import numpy as np

# As the style sheet has them, from the page.
INK = "var(--scaleml-ink, #444)"
FAINT = "var(--scaleml-faint, #ccc)"


def nice_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Return round numbers from `low` or below it to `high` or above it.

    >>> nice_ticks(0, 0.93)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    >>> nice_ticks(0, 57_520)
    [0.0, 20000.0, 40000.0, 60000.0]
    """
    step = 10.0 ** math.floor(math.log10((high - low) / (most - 1)))
    for factor in (2, 2.5, 2, 2, 2.5):  # 1, 2, 5, 10, ...
        if math.ceil(high / step - 1e-9) - math.floor(low / step + 1e-9) < most:
            break
        step *= factor
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(step * i, 12) for i in range(first, last + 1)]


def log_ticks(low: float, high: float, most: int = 7) -> list[float]:
    """Return 1, 2 and 5 times powers of ten, or the powers alone, from `low` or below it to `high` or above it.

    >>> log_ticks(0.03, 2)
    [0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0]
    >>> log_ticks(1e-5, 3)
    [1e-05, 0.0001, 0.001, 0.01, 0.1, 1.0, 10.0]
    """
    first, last = math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1
    for factors in ((1, 2, 5), (1, 3), (1,)):
        ticks = [float(f"{factor}e{power}") for power in range(first, last + 1) for factor in factors]
        below = max(i for i, tick in enumerate(ticks) if tick <= low * (1 + 1e-9))
        above = min(i for i, tick in enumerate(ticks) if tick >= high * (1 - 1e-9))
        if above - below < most:
            break
    return ticks[below : max(above, below + 1) + 1]


def new_axis(scale: Any, label: str, upright: bool = False, **settings: Any) -> Any:
    """Return an axis below, or upright on the left."""
    return bqplot.Axis(
        scale=scale,
        label=label,
        side="left" if upright else "bottom",
        color=FAINT,
        grid_color=FAINT,
        label_color=INK,
        tick_style={"fill": INK, "font-size": "11px"},
        label_offset="36px" if upright else "28px",
        **settings,
    )


class Wide(Protocol):
    """What has a horizontal axis."""

    @property
    def wide(self) -> float:
        """How far what it shows goes."""


@final
class Across:
    """The horizontal axis of line charts: those that share it end at the same place, and one message moves them all."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.scale = bqplot.LinearScale(min=0.0, max=1.0, allow_padding=False)
        self.axis = new_axis(self.scale, label)
        self.wide = 0.0
        self.charts: list[Wide] = []
        fit(self.axis, 0.0, 0.0)

    def fit(self, live: bool) -> None:
        """End where the data do; while more is to come a little further, not to move with every point."""
        self.wide = wide = max((chart.wide for chart in self.charts), default=0.0)
        if live and wide > 0:
            step = 10.0 ** math.floor(math.log10(wide)) / 5
            wide = step * math.ceil(wide / step)
        fit(self.axis, 0.0, wide, exact=True)


def fit(axis: Any, low: float, high: float, exact: bool = False) -> None:
    """Have an axis show a range, with round ticks; with `exact` it ends where the data do."""
    ticks = nice_ticks(low, high if high > low else low + 1.0)
    end = high if exact and high > low else ticks[-1]
    shown = np.array([tick for tick in ticks if tick <= end])
    if not np.array_equal(axis.tick_values, shown):  # also after another scale, whose range says nothing
        with axis.hold_sync():
            axis.tick_format = "~s" if end >= 10_000 else "~g"
            axis.tick_values = shown
    if (axis.scale.min, axis.scale.max) != (ticks[0], end):
        with axis.scale.hold_sync():
            axis.scale.min, axis.scale.max = ticks[0], end


def fit_log(axis: Any, low: float, high: float) -> None:
    """Have a logarithmic axis show a range."""
    ticks = np.array(log_ticks(low, high))
    if np.array_equal(axis.tick_values, ticks) and (axis.scale.min, axis.scale.max) == (ticks[0], ticks[-1]):
        return
    with axis.hold_sync():
        axis.tick_format = "~g"
        axis.tick_values = ticks
    with axis.scale.hold_sync():
        axis.scale.min, axis.scale.max = float(ticks[0]), float(ticks[-1])
