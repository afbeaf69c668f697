"""Charts: the live panels, as bqplot figures; every mark is a widget."""

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
MARGIN = {"top": 8, "bottom": 36, "left": 50, "right": 18}
HEIGHT = "230px"
_NOTHING = (np.empty(0), np.empty(0))


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
        layout=widgets.Layout(width="100%", height=HEIGHT, min_width="0", min_height="0", margin="0"),
    )


class Panel:
    """A titled panel, with room for a few words beside the title.

    Parameters
    ----------
    title : str
        What it shows.
    content : widgets
        Below the title.
    """

    def __init__(self, title: str, *content: widgets.Widget) -> None:
        head = widgets.HTML(
            f'<h4 class="scaleml-title">{title}</h4>', layout=widgets.Layout(margin="0", flex="0 0 auto")
        )
        self._about = widgets.HTML(layout=widgets.Layout(margin="0", flex="1 1 0", min_width="0"))
        top = widgets.HBox([head, self._about], layout=widgets.Layout(margin="0", overflow="hidden"))
        self.box = widgets.VBox([top, *content], layout=widgets.Layout(min_width="0"))
        self.box.add_class("scaleml-panel")

    def say(self, about: str) -> None:
        """Show a few words beside the title: whose it is, or why it is empty."""
        shown = f'<div class="scaleml-about" title="{escape(about)}">{escape(about)}</div>' if about else ""
        if self._about.value != shown:
            self._about.value = shown


@final
class Across:
    """The horizontal axis of line charts: those that share it end at the same place, and one message moves them all."""

    def __init__(self, label: str) -> None:
        self.scale = bqplot.LinearScale(min=0.0, max=1.0, allow_padding=False)
        self.axis = _axis(self.scale, label)
        self.wide = 0.0
        self.charts: list[LineChart] = []
        _fit(self.axis, 0.0, 0.0)

    def fit(self, live: bool) -> None:
        """End where the data do; while more is to come a little further, not to move with every point."""
        self.wide = wide = max((chart.wide for chart in self.charts), default=0.0)
        if live and wide > 0:
            step = 10.0 ** math.floor(math.log10(wide)) / 5
            wide = step * math.ceil(wide / step)
        _fit(self.axis, 0.0, wide, exact=True)


@final
class LineChart:
    """Runs as lines over one axis.

    Parameters
    ----------
    title, y : str
        What it shows, with units.
    across : Across
        The horizontal axis.
    """

    def __init__(self, title: str, across: Across, y: str) -> None:
        self._across = across
        across.charts.append(self)
        self._y = bqplot.LinearScale(min=0.0, max=1.0, allow_padding=False)
        self._axis = _axis(self._y, y, True)
        self._points: list[tuple[Any, Any]] = []
        self._changed = True
        self._made: list[Any] = []
        self.lines: list[Any] = []
        self._target = bqplot.Lines(
            x=[], y=[], scales=self._scales, colors=[INK], line_style="dotted", stroke_width=1.2, visible=False
        )
        self._across_target: tuple[float, float] | None = None
        _fit(self._axis, 0.0, 0.0)
        self.figure = _figure([self._target], [across.axis, self._axis])
        self.panel = Panel(title, self.figure)

    @property
    def _scales(self) -> dict[str, Any]:
        return {"x": self._across.scale, "y": self._y}

    @property
    def wide(self) -> float:
        """How far its lines go."""
        return max((float(x[-1]) for x, _ in self._points if len(x)), default=0.0)

    def dress(self, strokes: Sequence[Stroke]) -> None:
        """Have one line for each stroke.

        Those that are not needed are hidden, not closed: a page that is busy looks up a figure's marks a moment after it was told
        of them.
        """
        for stroke in strokes[len(self._made) :]:
            self._made.append(bqplot.Lines(x=[], y=[], scales=self._scales, stroke_width=2, **_look(stroke)))
        if len(self.figure.marks) != len(self._made) + 1:
            self.figure.marks = [self._target, *self._made]
        for i, line in enumerate(self._made):
            is_new, is_needed = i >= len(self.lines), i < len(strokes)
            if is_new and is_needed:
                look = _look(strokes[i])
                line.visible, line.colors, line.line_style = True, look["colors"], look["line_style"]
            elif not is_needed and line.visible:
                with line.hold_sync():
                    line.x, line.y, line.visible = *_NOTHING, False
        if len(self.lines) != len(strokes):
            self._points = [*self._points[: len(strokes)], *[_NOTHING] * (len(strokes) - len(self._points))]
            self.lines = self._made[: len(strokes)]
            self._changed = True

    def draw(self, index: int, x: Any, y: Any) -> None:
        """Show a run's points; nothing is sent where they are the same as before."""
        known = np.isfinite(x) & np.isfinite(y)
        x, y = x[known], y[known]
        if all(np.array_equal(*pair) for pair in zip((x, y), self._points[index], strict=True)):
            return
        self._points[index] = (x, y)
        self._changed = True
        line = self.lines[index]
        with line.hold_sync():
            line.x, line.y = x, y

    def fit(self, low: float | None = None, high: float | None = None, target: float | None = None) -> None:
        """Fit the upright axis to what is drawn, from 0, unless told otherwise; and draw the target across."""
        if self._changed:
            self._changed = False
            tall = max((float(y.max()) for _, y in self._points if len(y)), default=0.0) if high is None else high
            _fit(self._axis, 0.0 if low is None else low, tall)
        wide = self._across.wide
        shown = None if target is None or not wide else (wide, target)
        if shown != self._across_target:
            self._across_target = shown
            with self._target.hold_sync():
                self._target.visible = shown is not None
                if shown is not None:
                    self._target.x, self._target.y = np.array([0.0, wide]), np.array([target, target])


def _look(stroke: Stroke) -> dict[str, Any]:
    return {"colors": [stroke.color], "line_style": STYLES[stroke.dashes]}


def _short(ledger: Ledger, i: int) -> str:
    return f"{'rank' if ledger.workers[i] else 'server'} {ledger.ranks[i]}"


def _fit(axis: Any, low: float, high: float, exact: bool = False) -> None:
    """Have an axis show a range, with round ticks; with `exact` it ends where the data do."""
    ticks = nice_ticks(low, high if high > low else low + 1.0)
    end = high if exact and high > low else ticks[-1]
    if axis.tick_values is None or (axis.scale.min, axis.scale.max) != (ticks[0], end):
        shown = np.array([tick for tick in ticks if tick <= end])
        if not np.array_equal(axis.tick_values, shown):
            with axis.hold_sync():
                axis.tick_format = "~s" if end >= 10_000 else "~g"
                axis.tick_values = shown
        with axis.scale.hold_sync():
            axis.scale.min, axis.scale.max = ticks[0], end


@final
class LedgerChart:
    """Where the time of every rank went: one stacked bar a rank."""

    def __init__(self, title: str) -> None:
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
        self.panel = Panel(title, self.figure, keys)

    def draw(self, ledger: Ledger, about: str) -> None:
        """Show a run's ranks; `about` names the run."""
        self.panel.say(about)
        names = [_short(ledger, i) for i in range(len(ledger.ranks))]
        parts = np.array([getattr(ledger, part) for part in PARTS])
        with self.bars.hold_sync():
            self.bars.x, self.bars.y = names, parts
        _fit(self._axis, 0.0, float(ledger.wall.max(initial=0.0)))

    def clear(self) -> None:
        """Show no rank."""
        with self.bars.hold_sync():
            self.bars.x, self.bars.y = [], [[] for _ in PARTS]
