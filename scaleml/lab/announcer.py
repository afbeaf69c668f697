"""Announcer: the status that screen readers read aloud. Calm: only what has turned, and never faster than one can listen."""

from __future__ import annotations

from typing import Final, final

import ipywidgets as widgets

from scaleml.clock import WALL, Clock
from scaleml.escaping import escape

EVERY: Final = 5.0
"""Seconds between two changes, at least."""


@final
class Announcer:
    """A status that is heard, not seen; what comes too soon after another waits, and only the newest is said.

    Parameters
    ----------
    clock : Clock
        What tells when the next may be said.
    """

    def __init__(self, clock: Clock = WALL) -> None:
        self.widget = widgets.HTML()
        self.widget.add_class("scaleml-said")  # the page makes a polite status of it, see the style sheet
        self._clock = clock
        self._newest = ""
        self._said = ""
        self._when = clock.now() - EVERY

    @property
    def waits(self) -> bool:
        """Whether there is something that has not been said yet."""
        return self._newest != self._said

    def tell(self, text: str) -> None:
        """Say this as soon as may be."""
        self._newest = text
        if self.waits and self._clock.now() >= self._when + EVERY:
            self._said, self._when = text, self._clock.now()
            self.widget.value = escape(text)
