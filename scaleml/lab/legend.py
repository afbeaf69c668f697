"""Legend: a tick a run, with its line beside it; who is not ticked is not drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, final

import ipywidgets as widgets

from scaleml.lab.fields import auto
from scaleml.telemetry.palette import Stroke

TIP: Final = "Untick to hide its lines"


@final
class Legend:
    """The runs by name, each with its line and a tick.

    Parameters
    ----------
    changed : callable
        Called, in whatever thread hears the page, when a tick has changed.

    Attributes
    ----------
    box : Widget
    logarithmic : Checkbox
        Whether losses have a logarithmic axis.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._entries: list[tuple[Any, Any, Any]] = []
        self._count = 0
        self.logarithmic = widgets.Checkbox(description="log scale", indent=False, layout=widgets.Layout(width="auto"))
        self.logarithmic.observe(self._turned, "value")
        self.logarithmic.add_class("scaleml-log")
        self.runs = widgets.HBox(layout=widgets.Layout(flex_flow="row wrap", flex="1 1 0", min_width="0"))
        self.box = widgets.HBox([self.runs, self.logarithmic], layout=widgets.Layout(align_items="flex-start"))
        self.box.add_class("scaleml-legend")

    @property
    def shown(self) -> tuple[bool, ...]:
        """Whether each run is drawn."""
        return tuple(bool(tick.value) for _, tick, _ in self._entries[: self._count])

    @property
    def apart(self) -> list[widgets.Widget]:
        """Entries of runs that were cleared."""
        return [box for *_, box in self._entries[self._count :]]

    def dress(self, strokes: Sequence[Stroke]) -> None:
        """Have one entry for each run; those of runs that were cleared are used again, ticked."""
        while len(self._entries) < len(strokes):
            self._entries.append(self._entry())
        for _, tick, _ in self._entries[len(strokes) :]:
            tick.value = True
        for (line, _, _), stroke in zip(self._entries, strokes, strict=False):
            _set(line, swatch(stroke))
        if self._count != len(strokes):
            self._count = len(strokes)
            self.runs.children = [box for *_, box in self._entries[: self._count]]

    def name(self, index: int, text: str) -> None:
        """Name a run."""
        tick = self._entries[index][1]
        if tick.description != text:
            tick.description = text

    def _entry(self) -> tuple[Any, Any, Any]:
        line = widgets.HTML()
        tick = widgets.Checkbox(value=True, indent=False, tooltip=TIP, layout=auto())
        tick.observe(self._turned, "value")
        return line, tick, widgets.HBox([line, tick], layout=widgets.Layout(align_items="center", margin="0 14px 0 0"))

    def _turned(self, _: object) -> None:
        self._changed()


def swatch(stroke: Stroke) -> str:
    """Return a piece of a run's line."""
    dashes = " ".join(str(2 * dash) for dash in stroke.dashes)
    return (
        f'<svg width="30" height="8" aria-hidden="true"><line x1="0" y1="4" x2="30" y2="4" stroke="{stroke.color}" '
        f'stroke-width="2.5" stroke-dasharray="{dashes}"/></svg>'
    )


def _set(widget: Any, value: str) -> None:
    if widget.value != value:
        widget.value = value
