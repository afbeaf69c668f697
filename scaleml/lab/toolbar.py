"""Toolbar: the buttons of a lab, above everything that changes, so that they stay where they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import ipywidgets as widgets

from scaleml.lab.fields import button


@final
class Toolbar:
    """Run, stop, clear, and whether the settings are seen.

    Parameters
    ----------
    others : sequence of Widget
        Buttons between Run and Stop.
    """

    def __init__(self, others: Sequence[Any]) -> None:
        self.run = button("Run", "Train under every ticked strategy", "play", "primary")
        self.stop = button("Stop", "End the run and the comparison", "stop")
        self.clear = button("Clear", "Forget the runs so far", "trash")
        # A tick: the page itself folds by it, also while the kernel is busy, and keys and screen readers know it.
        self.settings = widgets.Checkbox(
            value=True, description="settings", indent=False, layout=widgets.Layout(width="auto")
        )
        self.settings.add_class("scaleml-fold")
        buttons = [self.run, *others, self.stop, self.clear, self.settings]
        self.box = widgets.HBox(buttons, layout=widgets.Layout(flex_flow="row wrap"))
        self.box.add_class("scaleml-tools")

    def follow(self, busy: bool) -> None:
        """Offer what can be done now."""
        self.stop.disabled = not busy
        self.run.disabled = self.clear.disabled = busy
        if busy:
            self.settings.value = False
