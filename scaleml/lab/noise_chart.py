"""The gradient noise scale of each run against samples: a line where replicas tell it, a dashed one where it is biased."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import final

from scaleml.lab.axes import Across
from scaleml.lab.charts import LineChart
from scaleml.lab.trace import Trace
from scaleml.telemetry.noise_scale import NoiseCurve
from scaleml.telemetry.palette import DASHES, Stroke

BIASED = "dashed: biased, one rank's gradients"


@final
class NoiseChart:
    """Two lines a run, the second one dashed, for estimates from successive gradients; see `telemetry.noise_scale`.

    Parameters
    ----------
    samples : Across
        The horizontal axis, in rows of data.
    """

    def __init__(self, samples: Across) -> None:
        self.chart = LineChart("Gradient noise scale", samples, "rows")
        self.panel = self.chart.panel

    def dress(self, strokes: Sequence[Stroke]) -> None:
        """Have two lines for each stroke."""
        self.chart.dress([replace(stroke, dashes=dashes) for stroke in strokes for dashes in (DASHES[0], DASHES[1])])

    def show(self, shown: Sequence[bool]) -> None:
        """Draw these runs and hide the others."""
        self.chart.show([each for each in shown for _ in range(2)])

    def name(self, names: Sequence[str]) -> None:
        """Have points tell their run and values under the mouse."""
        self.chart.name([each for each in names for _ in range(2)])

    def draw(self, index: int, curve: NoiseCurve) -> None:
        """Show what is known of a run's."""
        for i, own in enumerate((~curve.biased, curve.biased)):
            self.chart.draw(2 * index + i, curve.samples[own], curve.rows[own])

    def fit(self) -> None:
        """Fit the upright axis."""
        self.chart.fit()

    def annotate(self, empty: str, traces: Sequence[Trace]) -> None:
        """Say beside the title what dashes mean, or of the last run why it has no line."""
        dashed = any(len(line.x) for line in self.chart.lines[1::2])
        drawn = dashed or any(len(line.x) for line in self.chart.lines)
        about = BIASED if dashed else "" if drawn or not traces else str(traces[-1].noise_scale)
        self.panel.say(empty or about)
