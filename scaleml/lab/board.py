"""Everything that is watched: words, progress, legend, panels, and what was found at the end."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any, final

import ipywidgets as widgets
import numpy as np

from scaleml.lab import words
from scaleml.lab.charts import LedgerChart, LineChart
from scaleml.lab.controller import Controller
from scaleml.lab.trace import Trace
from scaleml.telemetry.curves import Curve
from scaleml.telemetry.figures import shorten, title
from scaleml.telemetry.formatting import number, percent, seconds
from scaleml.telemetry.palette import Stroke, strokes
from scaleml.telemetry.report import fragment

KINDS = (("held-out", "held-out"), ("training", "training"))


@final
class Board:
    """The panels of a lab; only the publisher's thread draws on it."""

    def __init__(self) -> None:
        self.words = widgets.HTML()
        self.progress = widgets.HTML()
        self.legend = widgets.HTML()
        self.found = widgets.HTML()
        self.by_time = LineChart("Loss against time", "training time (s)", "loss")
        self.by_samples = LineChart("Loss against samples", "samples (rows)", "loss")
        self.throughput = LineChart("Samples a second", "training time (s)", "rows a second")
        self.ledger = LedgerChart("Time of each rank")
        self.staleness = LineChart("Staleness of updates", "training time (s)", "steps")
        self.box = widgets.VBox(
            [
                self.words,
                self.progress,
                self.found,
                self.legend,
                _grid(200, self.by_time.box, self.by_samples.box),
                _grid(280, self.ledger.box, self.throughput.box, self.staleness.box),
            ]
        )
        self.kind = "held-out"
        self._traces: list[Trace] = []
        self._judged: tuple[int, str] | None = None
        self._told: Any = None
        self.reached: Any = None

    def show(self, controller: Controller) -> None:
        """Draw what is new."""
        runs = controller.runs
        drawn = self._dress(runs)
        for index, trace in enumerate(self._traces):
            if not trace.complete and trace.look():
                self._draw(index, trace)
        self._frame(controller.target)
        _set(self.legend, _legend(runs, drawn))
        _set(self.words, self._sentence(controller))
        _set(self.progress, self._bar(controller))
        self._judge(controller)
        self.reached = self._reached(controller)

    def _reached(self, controller: Controller) -> Any:
        run = controller.live
        if run is None or controller.target is None or self._told is run:
            return None
        losses = run.history.evaluations["loss"]
        if not (losses <= controller.target).any():
            return None
        self._told = run
        return run

    def _dress(self, runs: Sequence[Any]) -> list[Stroke]:
        """Have a trace and a line for each run."""
        drawn = strokes([bool(run.is_serial) for run in runs])
        if [trace.run for trace in self._traces][: len(runs)] != list(runs)[: len(self._traces)] or len(runs) < len(
            self._traces
        ):
            self._traces = []
            self._lines([])
        if len(self._traces) < len(runs):
            self._traces += [Trace(run) for run in runs[len(self._traces) :]]
            self._lines(drawn)
        if not runs and len(self.ledger.bars.x):
            self.ledger.clear()
        return drawn

    def _lines(self, drawn: Sequence[Stroke]) -> None:
        for chart in (self.by_time, self.by_samples, self.throughput, self.staleness):
            chart.dress(drawn)

    def _draw(self, index: int, trace: Trace) -> None:
        trace.curve = curve = trace.losses(self.kind)
        self.by_time.draw(index, curve.time, curve.loss)
        self.by_samples.draw(index, curve.samples, curve.loss)
        self.throughput.draw(index, *trace.throughput())
        self.staleness.draw(index, *trace.staleness())
        if index == len(self._traces) - 1:
            self.ledger.draw(trace.ledger(), shorten(title(trace.run), 22))

    def _frame(self, target: float | None) -> None:
        low, high = frame([trace.curve for trace in self._traces if trace.curve is not None])
        for chart in (self.by_time, self.by_samples):
            chart.fit(low, high, target)
        for other in (self.throughput, self.staleness):
            other.fit()

    def _sentence(self, controller: Controller) -> str:
        notes = "".join(
            f'<div class="scaleml-error" role="alert">{escape(text)}</div>'
            for text in (controller.error, controller.note)
            if text
        )
        return f'<div class="scaleml-words" role="status" aria-live="polite">{escape(self._state(controller))}</div>{notes}'

    def _state(self, controller: Controller) -> str:
        if controller.phase == "stopping":
            return "Stopping at the next step all ranks have in common ..."
        if controller.phase == "starting":
            return "Starting: the data goes to the workers ..."
        if self._traces:
            return words.line(self._traces[-1])
        return "Choose strategies and press Run."

    def _bar(self, controller: Controller) -> str:
        if not self._traces:
            return bar(0.0, "")
        trace = self._traces[-1]
        total = float(trace.run.total_samples)
        done = min(1.0, trace.now.samples / total) if total else 0.0
        if controller.phase == "idle":
            return bar(done, f"{len(self._traces)} run{'s' * (len(self._traces) != 1)}")
        left = (total - trace.now.samples) / trace.now.samples_per_s if trace.now.samples_per_s > 0 else np.nan
        rest = f", about {seconds(left)} left" if np.isfinite(left) and not trace.now.over else ""
        return bar(done, f"run {len(self._traces)}: {percent(done)}{rest}")

    def _judge(self, controller: Controller) -> None:
        """The table and the verdict, when all runs are over."""
        state = (len(controller.runs), controller.phase)
        if state == self._judged:
            return
        self._judged = state
        ended = controller.phase == "idle" and controller.runs
        _set(self.found, f'<div class="scaleml-card">{fragment(controller.result)}</div>' if ended else "")


def _grid(least: int, *panels: Any) -> widgets.Widget:
    """Arrange panels side by side, as many as fit at `least` pixels each."""
    columns = f"repeat(auto-fit, minmax(min(100%, {least}px), 1fr))"
    return widgets.GridBox(panels, layout=widgets.Layout(grid_template_columns=columns, grid_gap="8px", margin="4px 0"))


def frame(curves: Sequence[Curve]) -> tuple[float, float]:
    """Return the range of losses to show: from 0, and a run that diverges does not flatten the others."""
    finite = [curve.loss[np.isfinite(curve.loss)] for curve in curves]
    losses = np.concatenate(finite) if finite else np.empty(0)
    if not len(losses):
        return 0.0, 1.0
    first = max(float(part[0]) for part in finite if len(part))
    top = min(float(losses.max()), 1.3 * first) if losses.max() > 2 * first > 0 else float(losses.max())
    return min(0.0, float(losses.min())), top


def bar(done: float, text: str) -> str:
    """Return a progress bar."""
    return (
        f'<div class="scaleml-bar" role="progressbar" aria-valuenow="{100 * done:.0f}" aria-valuemin="0" aria-valuemax="100">'
        f'<i style="width:{100 * done:.1f}%"></i></div><div class="scaleml-soft">{escape(text)}</div>'
    )


def _legend(runs: Sequence[Any], drawn: Sequence[Stroke]) -> str:
    entries = []
    for run, stroke in zip(runs, drawn, strict=True):
        dashes = " ".join(str(2 * dash) for dash in stroke.dashes)
        swatch = (
            f'<svg width="34" height="8" aria-hidden="true"><line x1="0" y1="4" x2="34" y2="4" stroke="{stroke.color}" '
            f'stroke-width="2.5" stroke-dasharray="{dashes}"/></svg>'
        )
        last = run.history.evaluations["loss"][-1:]
        loss = f": loss {number(float(last[0]))}" if len(last) else ""
        entries.append(f"<span>{swatch}{escape(title(run))}{loss}</span>")
    return f'<div class="scaleml-legend">{"".join(entries)}</div>'


def _set(widget: Any, value: str) -> None:
    if widget.value != value:
        widget.value = value
