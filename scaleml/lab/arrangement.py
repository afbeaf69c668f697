"""Arrangement of a lab: what stands where, under the style sheet."""

from __future__ import annotations

from collections.abc import Sequence

import ipywidgets as widgets

from scaleml.lab import style


def whole(
    above: Sequence[widgets.Widget], setup: widgets.Widget, summary: widgets.Widget, board: widgets.Widget
) -> widgets.Widget:
    """Return all of a lab: what stays where it is above what comes and goes."""
    sheet = widgets.HTML(style.SHEET, layout=widgets.Layout(display="none"))
    setup.add_class("scaleml-card")
    setup.add_class("scaleml-setup")
    layout = widgets.Layout(width="100%")  # its width decides how it is arranged, not the other way round
    box = widgets.VBox([sheet, *above, setup, summary, board], layout=layout)
    box.add_class("scaleml-lab")
    return box
