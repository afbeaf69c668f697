"""Board: everything that is watched. Words, progress, legend, panels, and what was found at the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from typing import Any, final

import ipywidgets as widgets
import numpy as np

from scaleml.api.run import Run
from scaleml.clock import WALL
from scaleml.lab import progress_bar, words
from scaleml.lab.announcer import Announcer
from scaleml.lab.axes import Across
from scaleml.lab.charts import LedgerChart, LineChart
from scaleml.lab.controller import Controller
from scaleml.lab.legend import Legend
from scaleml.lab.noise_chart import NoiseChart
from scaleml.lab.trace import Trace
from scaleml.telemetry.curves import Curve
from scaleml.telemetry.figures import title
from scaleml.telemetry.formatting import number
from scaleml.telemetry.palette import Stroke, strokes
from scaleml.telemetry.report import fragment

NOT_YET = "no run"
READABLE = 0.3
"""Seconds between two changes of the words' numbers."""


@final
class Board:
    """The panels of a lab; only the publisher's thread draws on it.

    Parameters
    ----------
    changed : callable
        Called when somebody wants other lines or another scale.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        self.notes = widgets.HTML()
        self.words = widgets.HTML()
        self.announcer = Announcer()
        self.progress = widgets.HTML()
        self.legend = Legend(changed)
        self.found = widgets.HTML()
        clock, samples = Across("training time (s)"), Across("samples (rows)")
        self.by_time = LineChart("Loss against time", clock, "loss")
        self.by_samples = LineChart("Loss against samples", samples, "loss")
        self.throughput = LineChart("Samples a second", clock, "rows a second")
        self.ledger = LedgerChart("Time of each rank")
        self.staleness = LineChart("Staleness of updates", clock, "steps")
        self.noise = NoiseChart(samples)
        self._axes = (clock, samples)
        self._charts = (self.by_time, self.by_samples, self.throughput, self.staleness)
        self.box = widgets.VBox(
            [
                self.announcer.widget,
                self.words,
                self.progress,
                self.legend.box,
                _grid(200, self.by_time, self.by_samples),
                self.found,
                _grid(280, self.ledger, self.throughput, self.staleness, self.noise),
            ]
        )
        self._traces: list[Trace] = []
        self._judged: tuple[int, str] | None = None
        self._told: Run | None = None
        self._headline = ""
        self._runs: tuple[Run, ...] | None = None
        self._strokes: list[Stroke] = []
        self._state: Any = None
        self._behind = False
        self._wrote = 0.0
        self.reached: Run | None = None

    @property
    def apart(self) -> list[widgets.Widget]:
        """What no other widget refers to now."""
        return [*self.legend.apart, *(scale for chart in (*self._charts, self.noise.chart) for scale in chart.apart)]

    def show(self, controller: Controller) -> None:
        """Draw what is new."""
        self._dress(controller.runs)
        news = [i for i, trace in enumerate(self._traces) if not trace.complete and trace.look()]
        for i in news:
            self._draw(i, self._traces[i])
        states = tuple(trace.now.state for trace in self._traces)
        seen = (self.legend.shown, self.legend.logarithmic.value)
        state = (controller.phase, controller.note, controller.error, controller.planned, controller.runs, states, seen)
        turned, self._state = state != self._state, state
        if news or turned:
            self._frame(controller)
        self._judge(controller)
        self._write(controller, turned, bool(news))
        self.announcer.tell(self._turn(controller))
        self.reached = self._reached(controller)

    def _write(self, controller: Controller, turned: bool, news: bool) -> None:
        """Renew the words: at once where something happened; numbers that flicker faster than `READABLE` nobody reads."""
        now = WALL.now()
        self._behind |= news
        if turned or (self._behind and now >= self._wrote + READABLE):
            self._behind, self._wrote = False, now
            self._annotate()
            _set(self.notes, _notes(controller))
            _set(self.words, f'<div class="scaleml-words">{escape(self._sees(controller))}</div>')
            _set(self.progress, progress_bar.line(controller, self._traces))

    def _reached(self, controller: Controller) -> Run | None:
        run = controller.live
        if run is None or controller.target is None or self._told is run:
            return None
        if not self._traces[-1].best <= controller.target:
            return None
        self._told = run
        return run

    def _dress(self, runs: tuple[Run, ...]) -> None:
        """Have a trace and a line for each run."""
        if runs is self._runs:
            return
        if runs[: len(self._traces)] != tuple(trace.run for trace in self._traces):
            self._traces = []
            self._lines()
            self.ledger.clear()
        self._runs = runs
        self._strokes = strokes([run.label for run in runs])
        self._traces += [Trace(run) for run in runs[len(self._traces) :]]
        self._lines()

    def _lines(self) -> None:
        for chart in self._charts:
            chart.dress(self._strokes[: len(self._traces)])
        self.noise.dress(self._strokes[: len(self._traces)])
        self.legend.dress(self._strokes[: len(self._traces)])

    def _draw(self, index: int, trace: Trace) -> None:
        trace.curve = curve = trace.losses()
        self.by_time.draw(index, curve.time, curve.loss)
        self.by_samples.draw(index, curve.samples, curve.loss)
        self.throughput.draw(index, *trace.throughput())
        self.staleness.draw(index, *trace.staleness())
        self.noise.draw(index, trace.noise())
        if index == len(self._traces) - 1:
            self.ledger.draw(trace.total, trace.run.label)

    def _frame(self, controller: Controller) -> None:
        shown, logarithmic = self.legend.shown, bool(self.legend.logarithmic.value)
        for line_chart in (*self._charts, self.noise):
            line_chart.show(shown)
        for loss in (self.by_time, self.by_samples):
            loss.measure(logarithmic)
        seen = [trace.curve for trace, on in zip(self._traces, shown, strict=True) if on and trace.curve is not None]
        low, high = frame(seen)
        for axis in self._axes:
            axis.fit(live=controller.phase != "idle")
        for chart in (self.by_time, self.by_samples):
            chart.fit(low, high, controller.target)
        for other in (self.throughput, self.staleness):
            other.fit()
        self.noise.fit()

    def _annotate(self) -> None:
        """Name the runs, and say beside a panel's title why it is empty."""
        names = [title(trace.run) for trace in self._traces]
        for i, (trace, name) in enumerate(zip(self._traces, names, strict=True)):
            loss = f": loss {number(trace.now.held_out)}" if np.isfinite(trace.now.held_out) else ""
            self.legend.name(i, name + loss)
        for line_chart in (*self._charts, self.noise):
            line_chart.name(names)
        empty = "" if self._traces else NOT_YET
        for chart in (self.by_time, self.by_samples, self.throughput):
            chart.panel.say(empty)
        if empty:
            self.ledger.panel.say(empty)
        stale = any(trace.is_stale for trace in self._traces)
        self.staleness.panel.say(empty or ("" if stale else "0: none came late"))
        self.noise.annotate(empty, self._traces)

    def _sees(self, controller: Controller) -> str:
        if controller.phase == "stopping":
            return "Stopping at the next step all ranks have in common ..."
        if controller.phase == "starting":
            return "Starting: the data goes to the workers ..."
        if self._traces:
            return words.line(self._traces[-1])
        return "Choose strategies and press Run."

    def _turn(self, controller: Controller) -> str:
        """What somebody who only listens has to know: what has turned, without figures that always change."""
        if controller.phase in ("starting", "stopping"):
            return self._sees(controller)
        if not self._traces:
            return ""
        if controller.phase == "idle":
            return self._headline
        trace = self._traces[-1]
        slow = "" if trace.now.slow is None else f"; rank {trace.now.slow} holds up the others"
        of = max(controller.number, controller.planned)
        return f"Run {controller.number} of {of}: {trace.run.label} {trace.now.state}{slow}."

    def _judge(self, controller: Controller) -> None:
        """The table and the verdict, when all runs are over."""
        state = (len(controller.runs), controller.phase)
        if state == self._judged:
            return
        self._judged = state
        ended = controller.phase == "idle" and controller.runs
        self._headline = controller.result.verdict.headline if ended else ""
        _set(
            self.found, f'<div class="scaleml-card">{fragment(controller.result, foldable=True)}</div>' if ended else ""
        )


def _grid(least: int, *charts: Any) -> widgets.Widget:
    """Arrange panels side by side, as many as fit at `least` pixels each."""
    columns = f"repeat(auto-fit, minmax(min(100%, {least}px), 1fr))"
    boxes = [chart.panel.box for chart in charts]
    return widgets.GridBox(boxes, layout=widgets.Layout(grid_template_columns=columns, grid_gap="8px", margin="4px 0"))


def frame(curves: Sequence[Curve]) -> tuple[float, float]:
    """Return the range of losses to show: from 0, and a run that diverges does not flatten the others."""
    finite = [curve.loss[np.isfinite(curve.loss)] for curve in curves]
    losses = np.concatenate(finite) if finite else np.empty(0)
    if not len(losses):
        return 0.0, 1.0
    first = max(float(part[0]) for part in finite if len(part))
    top = min(float(losses.max()), 1.3 * first) if losses.max() > 2 * first > 0 else float(losses.max())
    return min(0.0, float(losses.min())), top


def _notes(controller: Controller) -> str:
    texts = [text for text in (controller.error, controller.note) if text]
    alerts = "".join(f'<div class="scaleml-error" role="alert">{escape(text)}</div>' for text in texts)
    return f'<div class="scaleml-notes">{alerts}</div>'


def _set(widget: Any, value: str) -> None:
    if widget.value != value:
        widget.value = value
