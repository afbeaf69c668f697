"""Board: everything that is watched. Words, progress, legend, panels, and what was found at the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, final

import ipywidgets as widgets
import numpy as np

from scaleml.api.run import Run
from scaleml.clock import WALL
from scaleml.escaping import escape
from scaleml.lab import progress_bar, words
from scaleml.lab.announcer import Announcer
from scaleml.lab.axes import Across
from scaleml.lab.charts import LedgerChart, LineChart
from scaleml.lab.controller import Controller
from scaleml.lab.lane import Lane
from scaleml.lab.lanes import Lanes
from scaleml.lab.legend import Legend
from scaleml.lab.noise_chart import NoiseChart
from scaleml.lab.trace import Trace
from scaleml.telemetry.curves import Curve, loss_curve
from scaleml.telemetry.figures import title
from scaleml.telemetry.formatting import number
from scaleml.telemetry.palette import Stroke
from scaleml.telemetry.recovery import recovery_fragment
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
    keeping : Widget
        Shown below the table.
    """

    def __init__(self, changed: Callable[[], None], keeping: Any) -> None:
        self.notes = widgets.HTML()
        self.words = widgets.HTML()
        self.announcer = Announcer()
        self.progress = widgets.HTML()
        self.recoveries = widgets.HTML()
        self.legend = Legend(changed)
        self.found = widgets.HTML()
        clock, samples = Across("training time (s)"), Across("samples (rows)")
        self.by_time = LineChart("Loss against time", clock, "loss", banded=True)
        self.by_samples = LineChart("Loss against samples", samples, "loss", banded=True)
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
                self.recoveries,
                self.legend.box,
                _grid(200, self.by_time, self.by_samples),
                self.found,
                keeping,
                _grid(280, self.ledger, self.throughput, self.staleness, self.noise),
            ]
        )
        self._lanes = Lanes()
        self._judged: tuple[int, str, int] | None = None
        self._told: Run | None = None
        self._headline = ""
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
        before = controller.phase == "idle"  # read before the runs: afterwards nothing more comes
        self._dress(controller.runs)
        news = self._lanes.look()
        for i in news:
            self._draw(i, self._lanes.all[i])
        states = (
            None if self._newest is None else self._newest.now.state,
            *(lane.trace.now.state for lane in self._lanes.all),
        )
        seen = (self.legend.shown, self.legend.logarithmic.value)
        state = (controller.phase, controller.note, controller.error, controller.planned, controller.runs, states, seen)
        turned, self._state = state != self._state, state
        if turned and before:
            self._settle()
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
            _set(self.progress, progress_bar.line(controller, self._newest))
            drawn = () if self._newest is None else self._newest.run.history.recoveries
            _set(self.recoveries, recovery_fragment(drawn))

    def _reached(self, controller: Controller) -> Run | None:
        run = controller.live
        if run is None or controller.target is None or self._told is run:
            return None
        if run.place is not None and run.place.stage != "round":
            return None
        if loss_curve(run.history).crossing(controller.target) is None:
            return None
        self._told = run
        return run

    @property
    def _newest(self) -> Trace | None:
        return self._lanes.newest

    def _dress(self, runs: tuple[Run, ...]) -> None:
        """Have a lane and a line for each contender."""
        known = len(self._lanes.all)
        if self._lanes.follow(runs):
            self._lines([])
            self.ledger.clear()
            known = 0
        if len(self._lanes.all) != known:
            self._lines(self._lanes.strokes)

    def _lines(self, drawn: Sequence[Stroke]) -> None:
        for chart in self._charts:
            chart.dress(drawn)
        self.noise.dress(drawn)
        self.legend.dress(drawn)

    def _draw(self, index: int, lane: Lane) -> None:
        trace = lane.trace
        self._draw_losses(index, lane)
        self.throughput.draw(index, *trace.throughput())
        self.staleness.draw(index, *trace.staleness())
        self.noise.draw(index, trace.noise())
        if index == self._lanes.current:
            self.ledger.draw(trace.total, trace.run.label)

    def _draw_losses(self, index: int, lane: Lane) -> None:
        """The live round's losses, or the median of all, before what the rounds were between."""
        curve = lane.losses()
        self.by_time.draw(index, curve.time, curve.loss)
        self.by_samples.draw(index, curve.samples, curve.loss)
        self.by_time.draw_band(index, lane.band("time"))
        self.by_samples.draw_band(index, lane.band("samples"))

    def _settle(self) -> None:
        """Show the medians: nothing more comes."""
        self._lanes.rest()
        for i, lane in enumerate(self._lanes.all):
            self._draw_losses(i, lane)

    def _frame(self, controller: Controller) -> None:
        shown, logarithmic = self.legend.shown, bool(self.legend.logarithmic.value)
        for line_chart in (*self._charts, self.noise):
            line_chart.show(shown)
        for loss in (self.by_time, self.by_samples):
            loss.measure(logarithmic)
        seen = [lane.shown for lane, on in zip(self._lanes.all, shown, strict=True) if on and lane.shown is not None]
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
        traces = [lane.trace for lane in self._lanes.all]
        names = [title(trace.run) for trace in traces]
        for i, (trace, name) in enumerate(zip(traces, names, strict=True)):
            which = " in its last run" if self._lanes.all[i].runs > 1 else ""  # below are medians
            loss = f": loss {number(trace.now.held_out)}{which}" if np.isfinite(trace.now.held_out) else ""
            self.legend.name(i, name + loss)
        for line_chart in (*self._charts, self.noise):
            line_chart.name(names)
        empty = "" if traces else NOT_YET
        for chart in (self.by_time, self.by_samples, self.throughput):
            chart.panel.say(empty)
        if empty:
            self.ledger.panel.say(empty)
        stale = any(trace.is_stale for trace in traces)
        self.staleness.panel.say(empty or ("" if stale else "0: none came late"))
        self.noise.annotate(empty, traces)

    def _sees(self, controller: Controller) -> str:
        if controller.phase == "stopping":
            return "Stopping at the next step all ranks have in common ..."
        if controller.phase == "starting":
            return "Starting: the data goes to the workers ..."
        if self._newest is not None:
            return words.line(self._newest)
        return "Choose strategies and press Run."

    def _turn(self, controller: Controller) -> str:
        """What somebody who only listens has to know: what has turned, without figures that always change."""
        if controller.phase in ("starting", "stopping"):
            return self._sees(controller)
        trace = self._newest
        if trace is None:
            return ""
        if controller.phase == "idle":
            return self._headline
        slow = "" if trace.now.slow is None else f"; rank {trace.now.slow} holds up the others"
        return f"{progress_bar.where(controller, trace).capitalize()}: {trace.run.label} {trace.now.state}{slow}."

    def _judge(self, controller: Controller) -> None:
        """The table and the verdict, when all runs are over, and after every round."""
        state: Any = (controller.rounds, controller.phase, controller.runs if controller.phase == "idle" else ())
        if state == self._judged:
            return
        self._judged = state
        ended = (controller.phase == "idle" or controller.rounds) and controller.runs
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
