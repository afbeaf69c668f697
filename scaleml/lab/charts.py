"""The live panels, as bqplot figures: every mark is a widget."""

from __future__ import annotations

from collections.abc import Sequence
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
MARGIN = {"top": 6, "bottom": 38, "left": 56, "right": 14}
HEIGHT = "230px"


def _axis(scale: Any, label: str, upright: bool = False, **settings: Any) -> Any:
    return bqplot.Axis(
        scale=scale,
        label=label,
        side="left" if upright else "bottom",
        num_ticks=5,
        color=FAINT,
        grid_color=FAINT,
        grid_lines="solid",
        label_color=INK,
        tick_style={"fill": INK, "font-size": "11px"},
        label_offset="42px" if upright else "30px",
        **settings,
    )


def _figure(marks: Sequence[Any], axes: Sequence[Any], **margins: int) -> Any:
    return bqplot.Figure(
        marks=list(marks),
        axes=list(axes),
        fig_margin={**MARGIN, **margins},
        animation_duration=0,
        background_style={"fill": "transparent"},
        display_toolbar=False,
        layout=widgets.Layout(width="100%", height=HEIGHT, min_width="0", min_height="0"),
    )


def panel(title: str, *content: widgets.Widget, extra: widgets.Widget | None = None) -> widgets.Widget:
    """Return a titled panel."""
    head = widgets.HTML(f'<h4 class="scaleml-title">{title}</h4>', layout=widgets.Layout(margin="0"))
    top = widgets.HBox([head, *([extra] if extra is not None else [])], layout=widgets.Layout(justify_content="space-between"))
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
    x_format, y_format : str
        D3 formats of the ticks.
    floor : float or None
        Where the vertical axis begins.
    """

    def __init__(
        self, title: str, x: str, y: str, x_format: str = "", y_format: str = "", floor: float | None = 0.0
    ) -> None:
        self._x = bqplot.LinearScale(min=0.0, allow_padding=False)
        self._y = bqplot.LinearScale(min=floor)
        self.lines: list[Any] = []
        self._target = bqplot.Lines(
            x=[], y=[], scales=self._scales, colors=[INK], line_style="dotted", stroke_width=1.2, visible=False
        )
        axes = [_axis(self._x, x, tick_format=x_format or None), _axis(self._y, y, True, tick_format=y_format or None)]
        self.figure = _figure([self._target], axes)
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
                    x=[], y=[], scales=self._scales, colors=[stroke.color], line_style=STYLES[stroke.dashes], stroke_width=2
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

    def frame(self, low: float | None, high: float | None) -> None:
        """Set the vertical range; None leaves it to the data."""
        with self._y.hold_sync():
            self._y.min, self._y.max = low, high

    def aim(self, target: float | None) -> None:
        """Draw the target across, or take it away."""
        ends = [line.x[-1] for line in self.lines if len(line.x)]
        shown = target is not None and bool(ends)
        with self._target.hold_sync():
            self._target.visible = shown
            if shown:
                self._target.x, self._target.y = np.array([0.0, max(ends)]), np.array([target, target])


@final
class LedgerChart:
    """Where the time of every rank went: one stacked bar a rank."""

    def __init__(self, title: str) -> None:
        ranks, spent = bqplot.OrdinalScale(reverse=True), bqplot.LinearScale(min=0.0, allow_padding=False)
        self.bars = bqplot.Bars(
            x=[],
            y=[[] for _ in PARTS],
            scales={"x": ranks, "y": spent},
            colors=[PART_COLORS[part] for part in PARTS],
            orientation="horizontal",
            padding=0.25,
            stroke=None,
        )
        axes = [_axis(ranks, "", True), _axis(spent, "seconds")]
        axes[0].grid_lines = "none"
        self.figure = _figure([self.bars], axes, left=76)
        chips = "".join(
            f'<span class="scaleml-key"><i style="background:{PART_COLORS[part]}"></i>{part}</span>' for part in PARTS
        )
        self.box = panel(title, self.figure, extra=widgets.HTML(chips))

    def draw(self, ledger: Ledger) -> None:
        """Show a run's ranks."""
        names = [ledger.name(i).replace(" (a server)", ", server") for i in range(len(ledger.ranks))]
        parts = np.array([getattr(ledger, part) for part in PARTS])
        with self.bars.hold_sync():
            self.bars.x, self.bars.y = names, parts

    def clear(self) -> None:
        """Show no rank."""
        with self.bars.hold_sync():
            self.bars.x, self.bars.y = [], [[] for _ in PARTS]
