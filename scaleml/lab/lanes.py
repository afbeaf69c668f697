"""Lanes: the runs of a lab by contender, and which of them is the newest."""

from __future__ import annotations

from typing import final

from scaleml.api.run import Run
from scaleml.lab.lane import Key, Lane, key_of
from scaleml.lab.trace import Trace
from scaleml.telemetry.palette import Stroke, strokes


@final
class Lanes:
    """Follows all runs: those of rounds in a lane for each contender, warm-ups and trials of a tuning stage in none.

    Attributes
    ----------
    all : list of Lane
    newest : Trace or None
        Of the run that began last, whatever it is for.
    """

    def __init__(self) -> None:
        self.all: list[Lane] = []
        self.newest: Trace | None = None
        self._runs: tuple[Run, ...] = ()

    @property
    def strokes(self) -> list[Stroke]:
        """How each is drawn: one colour a strategy for ever."""
        runs = [lane.trace.run for lane in self.all]
        return strokes([run.label for run in runs], [run.first_label for run in runs])

    @property
    def current(self) -> int | None:
        """The lane of the newest run; None where it has none."""
        return next((i for i, lane in enumerate(self.all) if lane.trace is self.newest), None)

    def follow(self, runs: tuple[Run, ...]) -> bool:
        """Take in what has begun; whether runs that were known are gone, so that all lanes are new."""
        if runs is self._runs:
            return False
        gone = runs[: len(self._runs)] != self._runs
        if gone:
            self.all, self.newest, self._runs = [], None, ()
        for position, run in enumerate(runs[len(self._runs) :], len(self._runs)):
            self._add(run, position)
        self._runs = runs
        return gone

    def look(self) -> list[int]:
        """Return which lanes have news."""
        if self.newest is not None and self.current is None and not self.newest.complete:
            self.newest.look()
        return [i for i, lane in enumerate(self.all) if lane.look()]

    def rest(self) -> None:
        """Nothing more comes: count what has ended."""
        for lane in self.all:
            lane.rest()

    def _add(self, run: Run, position: int) -> None:
        if run.place is not None and run.place.stage != "round":
            self.newest = Trace(run)
            return
        key: Key = key_of(run, position)
        lane = next((lane for lane in self.all if lane.key == key), None)
        if lane is None:
            lane = Lane(key, run)
            self.all.append(lane)
        else:
            lane.follow(run)
        self.newest = lane.trace
