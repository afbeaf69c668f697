"""Bands: behind the line of each contender what its rounds were between, as bqplot marks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, final

import bqplot
import numpy as np

from scaleml.lab.lane import NO_BAND, Band
from scaleml.telemetry.palette import Stroke

OPACITY: Final = 0.18


@final
class Bands:
    """One filled outline a contender.

    Parameters
    ----------
    scales : dict
        Of the chart.
    """

    def __init__(self, scales: dict[str, Any]) -> None:
        self._scales = scales
        self._logarithmic = False
        self.marks: list[Any] = []
        self._bands: list[Band] = []

    def dress(self, strokes: Sequence[Stroke]) -> list[Any]:
        """Have one for each stroke; those that are not needed are empty. Return all marks."""
        for stroke in strokes[len(self.marks) :]:
            mark = bqplot.Lines(
                x=[], y=[], scales=self._scales, stroke_width=0, fill="inside", fill_opacities=[OPACITY], colors=[stroke.color],
                fill_colors=[stroke.color],
            )  # fmt: skip
            self.marks.append(mark)
            self._bands.append(NO_BAND)
        for index, mark in enumerate(self.marks):
            if index >= len(strokes):
                self.draw(index, NO_BAND)
            elif mark.fill_colors != [strokes[index].color]:
                mark.colors = mark.fill_colors = [strokes[index].color]
        return self.marks

    def show(self, index: int, shown: bool) -> None:
        """Draw a contender's, or hide it."""
        self.marks[index].visible = shown

    def measure(self, scales: dict[str, Any], logarithmic: bool) -> None:
        """Have other scales."""
        self._scales, self._logarithmic = scales, logarithmic
        for index, mark in enumerate(self.marks):
            mark.scales = scales
            self._send(index)

    def draw(self, index: int, band: Band) -> None:
        """Show a band; nothing is sent where it is the same as before."""
        if all(np.array_equal(new, old) for new, old in zip(band, self._bands[index], strict=True)):
            return
        self._bands[index] = band
        self._send(index)

    def _send(self, index: int) -> None:
        x, low, high = self._bands[index]
        known = np.isfinite(low) & np.isfinite(high)
        known &= low > 0 if self._logarithmic else True
        mark = self.marks[index]
        with mark.hold_sync():
            mark.x = np.concatenate([x[known], x[known][::-1]])
            mark.y = np.concatenate([low[known], high[known][::-1]])
