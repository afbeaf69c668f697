"""Charts: the live panels, as bqplot figures; every mark is a widget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import bqplot
import ipywidgets as widgets
import numpy as np

from scaleml.escaping import escape
from scaleml.lab.axes import INK, Across, fit, fit_log, new_axis
from scaleml.lab.bands import Bands
from scaleml.lab.lane import Band
from scaleml.telemetry.glossary import WORDS
from scaleml.telemetry.ledger import PARTS, Ledger
from scaleml.telemetry.palette import DASHES, Stroke
from scaleml.telemetry.palette import PARTS as PART_COLORS

STYLES = dict(zip(DASHES, ("solid", "dashed", "dotted", "dash_dotted"), strict=True))
HOVERED = 40
"""The most points of a line that tell their values under the mouse."""
MARGIN = {"top": 8, "bottom": 36, "left": 50, "right": 18}
HEIGHT = "230px"
_NOTHING = (np.empty(0), np.empty(0))


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
class LineChart:
    """Runs as lines over one axis.

    Parameters
    ----------
    title, y : str
        What it shows, with units.
    across : Across
        The horizontal axis.
    banded : bool
        Whether there is a band behind each line.
    """

    def __init__(self, title: str, across: Across, y: str, banded: bool = False) -> None:
        self._across = across
        across.charts.append(self)
        self._linear = bqplot.LinearScale(min=0.0, max=1.0, allow_padding=False)
        self._log = bqplot.LogScale(min=0.1, max=1.0, allow_padding=False)
        self._y: Any = self._linear
        self._axis = new_axis(self._y, y, True)
        self._points: list[tuple[Any, Any]] = []
        self._shown: list[bool] = []
        self._changed = self._moved = True
        self._named: list[str] = []
        self._made: list[Any] = []
        self._bands = Bands(self._scales) if banded else None
        self.lines: list[Any] = []
        self._target = bqplot.Lines(
            x=[], y=[], scales=self._scales, colors=[INK], line_style="dotted", stroke_width=1.2, visible=False
        )
        tooltip = bqplot.Tooltip(fields=["name", "x", "y"], labels=["", across.label, y], formats=["", ".4~g", ".4~g"])
        # Points that are not seen (see the style sheet), and tell their values under the mouse: the page does that by itself.
        self.points = bqplot.Scatter(
            x=[],
            y=[],
            scales=self._scales,
            default_size=150,
            display_names=False,
            tooltip=tooltip,
            tooltip_style={"opacity": 1.0},
        )
        self._across_target: tuple[float, float] | None = None
        fit(self._axis, 0.0, 0.0)
        self.figure = _figure([self._target, self.points], [across.axis, self._axis])
        self.panel = Panel(title, self.figure)

    @property
    def _scales(self) -> dict[str, Any]:
        return {"x": self._across.scale, "y": self._y}

    @property
    def wide(self) -> float:
        """How far its lines go, those that are seen."""
        return max((float(x[-1]) for x, _ in self._seen() if len(x)), default=0.0)

    @property
    def apart(self) -> list[widgets.Widget]:
        """The scale that is not in use."""
        return [scale for scale in (self._linear, self._log) if scale is not self._y]

    def _seen(self) -> list[tuple[Any, Any]]:
        return [points for points, shown in zip(self._points, self._shown, strict=True) if shown]

    def dress(self, strokes: Sequence[Stroke]) -> None:
        """Have one line for each stroke.

        Those that are not needed are hidden, not closed: a page that is busy looks up a figure's marks a moment after it was told
        of them.
        """
        for stroke in strokes[len(self._made) :]:
            self._made.append(bqplot.Lines(x=[], y=[], scales=self._scales, stroke_width=2, **_look(stroke)))
        behind = [] if self._bands is None else self._bands.dress(strokes)
        marks = [self._target, *behind, *self._made, self.points]
        if len(self.figure.marks) != len(marks):
            self.figure.marks = marks
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
            self._shown = [*self._shown[: len(strokes)], *[True] * (len(strokes) - len(self._shown))]
            self.lines = self._made[: len(strokes)]
            self._changed = self._moved = True

    def show(self, shown: Sequence[bool]) -> None:
        """Draw these runs and hide the others; the axes then fit those that are seen."""
        for index, (line, is_shown) in enumerate(zip(self.lines, shown, strict=True)):
            if self._shown[index] != is_shown:
                self._shown[index] = line.visible = is_shown
                if self._bands is not None:
                    self._bands.show(index, is_shown)
                self._changed = self._moved = True

    def measure(self, logarithmic: bool) -> None:
        """Have a logarithmic upright axis, or a linear one; what is not positive is not on a logarithmic one."""
        scale = self._log if logarithmic else self._linear
        if scale is self._y:
            return
        self._y = scale
        if logarithmic:  # before its scale: 0 has no place there
            self._axis.tick_values = np.array([scale.min, scale.max])
        self._axis.scale = scale
        for index, mark in enumerate((*self._made, self._target, self.points)):
            mark.scales = self._scales
            if index < len(self.lines):
                self._send(index)
        if self._bands is not None:
            self._bands.measure(self._scales, logarithmic)
        self._changed = self._moved = True

    def name(self, names: Sequence[str]) -> None:
        """Have some points of each line that is seen tell its name and their values under the mouse."""
        if not self._moved and list(names) == self._named:
            return
        self._moved, self._named = False, list(names)
        xs, ys, said = [], [], []
        for (x, y), name, shown in zip(self._points, names, self._shown, strict=True):
            x, y = self._drawable(x, y) if shown else _NOTHING
            keep = np.unique(np.linspace(0, max(0, len(x) - 1), HOVERED).round().astype(int))[: len(x)]
            xs.append(x[keep])
            ys.append(y[keep])
            said += [name] * len(xs[-1])
        with self.points.hold_sync():
            self.points.names = np.array(said)
            self.points.x, self.points.y = np.concatenate([*xs, _NOTHING[0]]), np.concatenate([*ys, _NOTHING[1]])

    def _drawable(self, x: Any, y: Any) -> tuple[Any, Any]:
        return (x[y > 0], y[y > 0]) if self._y is self._log else (x, y)

    def _send(self, index: int) -> None:
        line = self.lines[index]
        with line.hold_sync():
            line.x, line.y = self._drawable(*self._points[index])

    def draw(self, index: int, x: Any, y: Any) -> None:
        """Show a run's points; nothing is sent where they are the same as before."""
        known = np.isfinite(x) & np.isfinite(y)
        x, y = x[known], y[known]
        if all(np.array_equal(*pair) for pair in zip((x, y), self._points[index], strict=True)):
            return
        self._points[index] = (x, y)
        self._changed = self._moved = True
        self._send(index)

    def draw_band(self, index: int, band: Band) -> None:
        """Show between what a contender's rounds were."""
        assert self._bands is not None
        self._bands.draw(index, band)

    def fit(self, low: float | None = None, high: float | None = None, target: float | None = None) -> None:
        """Fit the upright axis to what is drawn, from 0, unless told otherwise; and draw the target across."""
        if self._changed:
            self._changed = False
            tall = max((float(y.max()) for _, y in self._seen() if len(y)), default=0.0) if high is None else high
            if self._y is self._log:
                positive = [float(y[y > 0].min()) for _, y in self._seen() if (y > 0).any()]
                fit_log(self._axis, min(positive, default=0.1), max(tall, 1.5 * min(positive, default=0.1)))
            else:
                fit(self._axis, 0.0 if low is None else low, tall)
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
        self._axis = new_axis(self._spent, "seconds")
        fit(self._axis, 0.0, 0.0)
        self.figure = _figure([self.bars], [new_axis(ranks, "", True, grid_lines="none"), self._axis], left=60)
        chips = "".join(
            f'<span class="scaleml-key" title="{escape(WORDS[part])}"><i style="background:{PART_COLORS[part]}"></i>{part}</span>'
            for part in PARTS
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
        fit(self._axis, 0.0, float(ledger.wall.max(initial=0.0)))

    def clear(self) -> None:
        """Show no rank."""
        with self.bars.hold_sync():
            self.bars.x, self.bars.y = [], [[] for _ in PARTS]
