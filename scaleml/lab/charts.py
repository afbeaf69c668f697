"""The live panels, as bqplot figures: every mark is a widget."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Any, final

import bqplot
import ipywidgets as widgets
import numpy as np

from scaleml.telemetry.ledger import PARTS, Ledger
from scaleml.telemetry.palette import DASHES, Stroke
from scaleml.telemetry.palette import PARTS as PART_COLORS

STYLES = dict(zip(DASHES, ("solid", "dashed", "dotted", "dash_dotted"), strict=True))
INK = "var(--jp-ui-font-color1, #444)"
FAINT = "var(--jp-border-color2, #ccc)"
MARGIN = {"top": 8, "bottom": 36, "left": 50, "right": 12}
HEIGHT = "230px"


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


def _axis(scale: Any, label: str, upright: bool = False, **settings: Any) -> Any:
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


def _figure(marks: Sequence[Any], axes: Sequence[Any], **margins: int) -> Any:
    return bqplot.Figure(
        marks=list(marks),
        axes=list(axes),
        fig_margin={**MARGIN, **margins},
        animation_duration=0,
        padding_y=0.0,
        background_style={"fill": "transparent"},
        display_toolbar=False,
        layout=widgets.Layout(width="100%", height=HEIGHT, min_width="0", min_height="0"),
    )


def panel(title: str, *content: widgets.Widget, extra: widgets.Widget | None = None) -> widgets.Widget:
    """Return a titled panel."""
    head = widgets.HTML(f'<h4 class="scaleml-title">{title}</h4>', layout=widgets.Layout(margin="0", flex="0 0 auto"))
    top = widgets.HBox(
        [head, *([extra] if extra is not None else [])], layout=widgets.Layout(justify_content="space-between")
    )
    box = widgets.VBox([top, *content], layout=widgets.Layout(min_width="0"))
    box.add_class("scaleml-panel")
    return box


@final
class LineChart:
    """Runs as lines over one common axis.

    Parameters
    ----------
    title, x, y : str
        What it shows, with units.
    """

    def __init__(self, title: str, x: str, y: str) -> None:
        self._x = bqplot.LinearScale(min=0.0, max=1.0, allow_padding=False)
        self._y = bqplot.LinearScale(min=0.0, max=1.0, allow_padding=False)
        self.lines: list[Any] = []
        self._target = bqplot.Lines(
            x=[], y=[], scales=self._scales, colors=[INK], line_style="dotted", stroke_width=1.2, visible=False
        )
        self._axes = [_axis(self._x, x), _axis(self._y, y, True)]
        self.fit()
        self.figure = _figure([self._target], self._axes)
        self.box = panel(title, self.figure)

    @property
    def _scales(self) -> dict[str, Any]:
        return {"x": self._x, "y": self._y}

    def dress(self, strokes: Sequence[Stroke]) -> None:
        """Have one line for each stroke."""
        while len(self.lines) < len(strokes):
            stroke = strokes[len(self.lines)]
            self.lines.append(
                bqplot.Lines(
                    x=[],
                    y=[],
                    scales=self._scales,
                    colors=[stroke.color],
                    line_style=STYLES[stroke.dashes],
                    stroke_width=2,
                )
            )
        if len(self.lines) > len(strokes):
            gone = self.lines[len(strokes) :]
            del self.lines[len(strokes) :]
            self.figure.marks = [self._target, *self.lines]
            for line in gone:
                line.close()
        elif len(self.figure.marks) != len(self.lines) + 1:
            self.figure.marks = [self._target, *self.lines]

    def draw(self, index: int, x: Any, y: Any) -> None:
        """Show a run's points."""
        line = self.lines[index]
        known = np.isfinite(x) & np.isfinite(y)
        with line.hold_sync():
            line.x, line.y = x[known], y[known]

    def fit(self, low: float | None = None, high: float | None = None, target: float | None = None) -> None:
        """Fit the axes to what is drawn: from 0, unless told otherwise; and draw the target across."""
        wide = max((float(line.x[-1]) for line in self.lines if len(line.x)), default=0.0)
        tall = max((float(np.max(line.y)) for line in self.lines if len(line.y)), default=0.0)
        _fit(self._axes[0], 0.0, wide, exact=True)
        _fit(self._axes[1], 0.0 if low is None else low, tall if high is None else high)
        shown = target is not None and wide > 0
        with self._target.hold_sync():
            self._target.visible = shown
            if shown:
                self._target.x, self._target.y = np.array([0.0, wide]), np.array([target, target])


def _short(ledger: Ledger, i: int) -> str:
    return f"{'rank' if ledger.workers[i] else 'server'} {ledger.ranks[i]}"


def _fit(axis: Any, low: float, high: float, exact: bool = False) -> None:
    """Have an axis show a range, with round ticks; with `exact` it ends where the data do."""
    ticks = nice_ticks(low, high if high > low else low + 1.0)
    end = high if exact and high > low else ticks[-1]
    if axis.tick_values is None or (axis.scale.min, axis.scale.max) != (ticks[0], end):
        with axis.hold_sync():
            axis.tick_format = "~s" if end >= 10_000 else "~g"
            axis.tick_values = np.array([tick for tick in ticks if tick <= end])
        with axis.scale.hold_sync():
            axis.scale.min, axis.scale.max = ticks[0], end


@final
class LedgerChart:
    """Where the time of every rank went: one stacked bar a rank."""

    def __init__(self, title: str) -> None:
        self.about = widgets.HTML()
        ranks = bqplot.OrdinalScale(reverse=True)
        self._spent = bqplot.LinearScale(min=0.0, max=1.0, allow_padding=False)
        self.bars = bqplot.Bars(
            x=[],
            y=[[] for _ in PARTS],
            scales={"x": ranks, "y": self._spent},
            colors=[PART_COLORS[part] for part in PARTS],
            orientation="horizontal",
            padding=0.25,
            stroke=None,
        )
        self._axis = _axis(self._spent, "seconds")
        _fit(self._axis, 0.0, 0.0)
        self.figure = _figure([self.bars], [_axis(ranks, "", True, grid_lines="none"), self._axis], left=60)
        chips = "".join(
            f'<span class="scaleml-key"><i style="background:{PART_COLORS[part]}"></i>{part}</span>' for part in PARTS
        )
        keys = widgets.HTML(f'<div class="scaleml-keys">{chips}</div>')
        self.box = panel(title, self.figure, keys, extra=self.about)

    def draw(self, ledger: Ledger, about: str) -> None:
        """Show a run's ranks; `about` names the run."""
        self.about.value = f'<span class="scaleml-soft scaleml-about">{escape(about)}</span>'
        names = [_short(ledger, i) for i in range(len(ledger.ranks))]
        parts = np.array([getattr(ledger, part) for part in PARTS])
        with self.bars.hold_sync():
            self.bars.x, self.bars.y = names, parts
        _fit(self._axis, 0.0, float(ledger.wall.max(initial=0.0)))

    def clear(self) -> None:
        """Show no rank."""
        self.about.value = ""
        with self.bars.hold_sync():
            self.bars.x, self.bars.y = [], [[] for _ in PARTS]
