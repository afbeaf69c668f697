"""Progress of runs one after another, such as a comparison's: what runs now, how it does, and how long it will take yet."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Final, Self, final

import numpy as np

from scaleml.clock import WALL, Clock
from scaleml.telemetry import screen
from scaleml.telemetry.formatting import count, number, roughly, seconds
from scaleml.telemetry.gauge import Gauge, Reading
from scaleml.telemetry.palette import strokes
from scaleml.telemetry.place import Place
from scaleml.telemetry.progress_views import Lane, NotebookView, PlainView, Standing, TerminalView, View
from scaleml.telemetry.run_like import RunLike

EVERY: Final = 0.5
"""Seconds between two looks: numbers that change faster nobody reads."""
NAN: Final = float("nan")


@final
@dataclass
class _Lane:
    """All runs of one label.

    Parameters
    ----------
    label : str
    planned, begun : int
        Runs.
    spent : list of float
        Seconds of each that is over, from its start to its end.
    gauge, goal :
        Of the newest run, and the rows that it will have consumed.
    """

    label: str
    planned: int = 0
    begun: int = 0
    spent: list[float] = field(default_factory=list)
    gauge: Gauge | None = None
    goal: float = NAN


@final
class Progress:
    """Shows runs while they go on, where somebody looks; a context manager.

    In a notebook that is one display, which is updated and stays in the saved file; in a terminal some lines, on standard error.
    Nothing is asked of the runs: their histories are read twice a second, in a thread of its own.

    Parameters
    ----------
    name : str
        What is going on: ``"compare"``.
    wanted : bool, optional
        Whether to show it; a plain line a run where there is neither notebook nor terminal. Default: only where there is one of
        them, and in the main thread.
    view : View, optional
        Instead of what suits the place.
    clock : Clock
        What tells how long it takes.

    Raises
    ------
    TypeError
        For a `wanted` that is neither a bool nor None.

    Examples
    --------
    >>> with Progress("compare") as progress:  # doctest: +SKIP
    ...     progress.on_plan(["Serial()", "AllReduce()"])
    ...     progress.on_run(run, rows=60_000)
    ...     run.wait()
    """

    def __init__(self, name: str, wanted: bool | None = None, *, view: View | None = None, clock: Clock = WALL) -> None:
        if wanted is not None and not isinstance(wanted, bool):
            raise TypeError(
                f"progress={wanted!r}: must be True, False, or None, which shows it in a notebook and in a terminal alone"
            )
        self._name = name
        self._view = _view(wanted) if view is None else view
        self._clock = clock
        self._began = clock.now()
        self._run_began = self._began
        self._stage = "starting the workers and bringing them the data"
        self._round: tuple[int, int | None] | None = None
        self._a_round: dict[str, int] = {}
        self._early = ""
        self._lanes: dict[str, _Lane] = {}
        self._current: _Lane | None = None
        self._over = False
        self._lock = threading.RLock()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def on_plan(self, labels: Sequence[str]) -> None:
        """Take in the labels of all runs to come; each as often as it will run."""
        with self._lock:
            for lane in self._lanes.values():
                lane.planned = lane.begun
            self._a_round = {label: list(labels).count(label) for label in labels}
            for label in labels:
                self._lane(label).planned += 1
        self.refresh()

    def on_run(self, run: RunLike, rows: float | None = None) -> None:
        """Follow a run that starts now, and count the one before as over; `rows` is what all its ranks will have consumed.

        Of a comparison of several rounds `run.place` says which one it is; warm-ups and trials of a tuning stage are only named.
        """
        with self._lock:
            self._finish()
            place = run.place
            if place is not None and place.stage != "round":
                self._stage, self._early = f"{place}: {run.label}", place.stage
                self.refresh()
                return
            if place is not None:
                self._take_round(place)
            self._current = lane = self._lane(run.label)
            lane.begun += 1
            lane.planned = max(lane.planned, lane.begun)
            lane.gauge = Gauge(run)
            lane.goal = float(rows or run.total_samples or NAN)
            self._run_began = self._clock.now()
            self._stage = ""
        self.refresh()

    def _take_round(self, place: Place) -> None:
        """Note which round it is, and how often each label will run."""
        self._round = None if place.of == 1 else (place.round + 1, place.of)
        for label, lane in self._lanes.items():
            lane.planned = max(lane.begun, self._a_round.get(label, 0) * (place.of or place.round + 1))

    def say(self, stage: str) -> None:
        """Say what goes on when it is no run: ``"tuning: 12 trials"``; until the next run starts."""
        self._stage = stage
        self.refresh()

    def refresh(self) -> None:
        """Look now, and show it."""
        with self._lock:
            if self._view is not None:
                self._view.show(self.look())

    def look(self) -> Standing:
        """Return how it stands."""
        with self._lock:
            lanes = list(self._lanes.values())
            colors = [stroke.color for stroke in strokes([lane.label for lane in lanes])]
            left = self._left()
            shown = tuple(self._shown(lane, color) for lane, color in zip(lanes, colors, strict=True))
            return Standing(self._heading(left), shown)

    def __enter__(self) -> Self:
        if self._view is not None:
            self.refresh()
            self._thread = threading.Thread(target=self._watch, name="scaleml-progress", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        with self._lock:
            self._finish()
            self._over = True
            if self._view is not None:
                self._view.close(self.look())

    def _watch(self) -> None:
        while not self._ended.wait(EVERY):
            self.refresh()

    def _lane(self, label: str) -> _Lane:
        return self._lanes.setdefault(label, _Lane(label))

    def _finish(self) -> None:
        """Note how long the run before took."""
        if self._current is not None:
            self._current.spent.append(self._clock.now() - self._run_began)
            self._current = None

    def _left(self) -> float:
        """Guess the seconds left: a run takes what others of its label took, else what all took on average; NaN if unknown."""
        known = {lane.label: fmean(lane.spent) for lane in self._lanes.values() if lane.spent}
        total, current = 0.0, self._current
        if current is not None and current.gauge is not None:
            now = current.gauge.read()
            total = 0.0 if now.over else max(0.0, current.goal - now.samples) / (now.samples_per_s or NAN)
            known.setdefault(current.label, self._clock.now() - self._run_began + total)
        usual = fmean(known.values()) if known else NAN
        for lane in self._lanes.values():
            coming = lane.planned - lane.begun
            total += coming * known.get(lane.label, usual) if coming else 0.0
        return total

    def _heading(self, left: float) -> str:
        begun = sum(lane.begun for lane in self._lanes.values())
        planned = sum(lane.planned for lane in self._lanes.values())
        if self._over and not begun:
            what = f"ended in its {self._early}" if self._early else "no run was started"
            return f"{self._name}: {what}"
        if self._over:
            what = f"{begun} run{'s' * (begun != 1)} in" if begun > 1 else "ended after"
            return f"{self._name}: {what} {seconds(self._clock.now() - self._began)}"
        if self._stage:
            return f"{self._name}: {self._stage}"
        parts = (
            []
            if self._round is None
            else [f"round {self._round[0]}" + (f" of {self._round[1]}" if self._round[1] else "")]
        )
        parts += [f"run {begun} of {planned}"] if planned > 1 else []
        parts += [f"about {roughly(max(1.0, left))} left"] if np.isfinite(left) else ["taking its first steps"]
        return f"{self._name}: {', '.join(parts)}"

    def _shown(self, lane: _Lane, color: str) -> Lane:
        if lane.gauge is None:
            return Lane(lane.label, color, 0.0, "to come", "")
        now = lane.gauge.read()
        part = 1.0 if now.over else min(1.0, now.samples / lane.goal) if lane.goal > 0 else 0.0
        where = _where(lane.gauge.run)
        facts = [f"run {lane.begun} of {lane.planned}"] if lane.planned > 1 else []
        share = (lane.begun - 1 + part) / lane.planned
        return Lane(lane.label, color, share, ", ".join([*facts, *_facts(now)]), where, now.state, lane.gauge.run.error)


def _where(run: RunLike) -> str:
    if run.is_serial:
        return f"{run.threads} thread{'s' * (run.threads != 1)}"
    return f"{run.workers} worker{'s' * (run.workers != 1)}"


def _facts(now: Reading) -> list[str]:
    facts = [] if now.state == "running" else [f"{now.state} after {seconds(now.time)}" if now.over else now.state]
    facts += [f"{count(now.samples_per_s)} rows/s"] if np.isfinite(now.samples_per_s) else []
    if np.isfinite(now.held_out):
        facts.append(f"held-out loss {number(now.held_out)}")
    elif np.isfinite(now.loss):
        facts.append(f"loss {number(now.loss)}")
    return facts


def _view(wanted: bool | None) -> View | None:
    if wanted is False or (wanted is None and not screen.alone()):
        return None
    # Standard error, for results go to the other one; but in a pipe of either nobody watches.
    where = screen.place(sys.stderr, sys.stdout) if screen.alone() else "none"
    if where == "notebook":
        return NotebookView(screen.display())
    if where == "terminal":
        return TerminalView()
    return PlainView(sys.stderr) if wanted else None
