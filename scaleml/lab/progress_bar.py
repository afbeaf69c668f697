"""Progress bar: how far a comparison has come, and a guess at how long it will take yet."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scaleml.escaping import escape
from scaleml.lab.controller import Controller
from scaleml.lab.trace import Trace
from scaleml.telemetry.formatting import percent, roughly, seconds
from scaleml.telemetry.history import Change
from scaleml.telemetry.run_like import RunLike


def line(controller: Controller, trace: Trace | None) -> str:
    """Return the bar of the newest run, and beside it what that is for, and the time left, of it and in all."""
    if trace is None:
        return bar(0.0, "")
    goal = float(trace.run.total_samples or 0)
    done = min(1.0, trace.now.samples / goal) if goal else 0.0
    if controller.phase == "idle":
        return bar(done, counted(controller.runs))
    place = where(controller, trace)
    if trace.now.over:
        return bar(done, f"{place} is over")
    text = f"{place}: {percent(done)}"
    left = remaining(trace)
    if np.isfinite(left):
        text += f", about {roughly(left)} left"
        if controller.coming:
            whole = overall(controller.spent, trace.now.time, left, controller.coming)
            text += f"; about {roughly(whole)} in all, if the next runs are like these"
    change = trace.run.history.changes[-1:]
    if change:
        text += f"; last change after {seconds(change[0].time)}: {brief(change[0])}"
    return bar(done, text)


def counted(runs: Sequence[RunLike]) -> str:
    """Return how many runs there were, and how many of them no round counts: warm-ups, and trials of the tuning."""
    before = sum(run.place is not None and run.place.stage != "round" for run in runs)
    return f"{len(runs)} run{'s' * (len(runs) != 1)}" + (f", {before} of them before the rounds" if before else "")


def where(controller: Controller, trace: Trace) -> str:
    """Return what a run is for: the warm-up, which trial of the tuning, which run of which round."""
    place = trace.run.place
    number, of = controller.number, max(controller.number, controller.planned)
    if place is None:
        return f"run {number} of {of}"
    if place.stage != "round":
        return f"{place}, which does not count"
    alone = place.of == 1
    return f"run {number} of {of}" if alone else f"{place}, run {number} of {of}"


def brief(change: Change) -> str:
    """Return the words of a change of just now: of a fault without what goes then without saying.

    >>> fault = {"name": "Slow", "fields": {"rank": 1, "factor": 4.0, "step": 0, "until": None}}
    >>> brief(Change(2.0, "Slow(rank=1, factor=4.0, step=0, until=None)", kind="fault", fault=fault))
    'Slow(rank=1, factor=4.0)'
    """
    if change.fault is None:
        return change.text
    told = {name: value for name, value in change.fault["fields"].items() if name != "step" and value is not None}
    return f"{change.fault['name']}({', '.join(f'{name}={value!r}' for name, value in told.items())})"


def remaining(trace: Trace) -> float:
    """Guess the seconds that a run has left at its present rate; NaN before it has one."""
    left = float(trace.run.total_samples or 0) - trace.now.samples
    return left / trace.now.samples_per_s if trace.now.samples_per_s > 0 else float("nan")


def overall(spent: Sequence[float], time: float, left: float, coming: int) -> float:
    """Guess the seconds left of all runs: those to come take as long as those so far on average.

    Parameters
    ----------
    spent : sequence of float
        Seconds of the runs that are over.
    time, left : float
        Seconds of this run so far, and those it has left.
    coming : int
        Runs after this one.

    >>> overall([10.0], time=4.0, left=2.0, coming=2)
    18.0
    """
    return left + coming * (sum(spent) + time + left) / (len(spent) + 1)


def bar(done: float, text: str) -> str:
    """Return a progress bar with words below."""
    facts = f'aria-label="this run" aria-valuenow="{100 * done:.0f}" aria-valuemin="0" aria-valuemax="100"'
    return (
        f'<div class="scaleml-bar" role="progressbar" {facts}><i style="width:{100 * done:.1f}%"></i></div>'
        f'<div class="scaleml-soft">{escape(text)}</div>'
    )
