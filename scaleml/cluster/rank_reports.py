"""Rank reports: what a run's ranks tell goes into its history, or to whoever decides what follows from it."""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Callable, Iterable
from typing import final

from scaleml.clock import WALL
from scaleml.cluster.events import Beat, Entered, Event, FromRank, Marked, Printed, RankEvent, Recorded, WorkerLost
from scaleml.cluster.heard_ranks import HeardRanks
from scaleml.telemetry.columns import last_place, last_step
from scaleml.telemetry.history import History


@final
class RankReports:
    """Takes in what comes on the client's event loop, which it never holds up: a `RunListener`.

    Parameters
    ----------
    history : History
        Of the run.
    events : queue
        For the driver's thread.

    Attributes
    ----------
    topology : str or None
        What the ranks' strategy has settled on.
    step : int
        How far they have come.
    beats : HeardRanks
        Who has told anything.
    reached : dict
        How far each rank has come: its steps, and the rows of its own.
    leaving, left : set of str
        Workers that are about to close, and those that have done so.
    when_leaving : callable
        Told when there is another one that leaves.
    """

    def __init__(self, history: History, events: queue.SimpleQueue[Event]) -> None:
        self.topology: str | None = None
        self.leaving: set[str] = set()
        self.left: set[str] = set()
        self.when_leaving: Callable[[], object] = bool
        self._history = history
        self._events = events
        self.beats = HeardRanks()
        self._generation = self._heard_from = 0
        self.step = 0
        self._heard: dict[int, float] = {}
        self.reached: dict[int, tuple[int, int]] = {}
        self._awaited: tuple[int, Callable[[], object]] | None = None

    def heard(self, ranks: Iterable[int]) -> float:
        """Return when the last of these ranks was heard, on the wall's clock; 0.0 where none was."""
        return max((self._heard.get(rank, 0.0) for rank in ranks), default=0.0)

    def when_past(self, step: int, then: Callable[[], object]) -> None:
        """Call ``then``, once, when a step beyond this one was taken."""
        self._awaited = step, then

    def follow(self, generation: int) -> None:
        """Hear of the ranks of this generation from now on; what the last rows of those before it say still counts."""
        self._generation = generation
        self.reached.clear()  # others may have their numbers now
        self.forget_ranks()

    def rewind(self, generation: int, step: int | None) -> None:
        """Hear of ranks that go on from this step, after a loss: what others did after it counts no more; None: all of it counts."""
        self._generation = generation
        self.forget_ranks()
        if step is not None:
            self._heard_from = generation
            self._history.rewind(step)

    def forget_ranks(self) -> None:
        """Take out of the queue what former ranks have said: these are others, under the same numbers."""
        waiting = []
        with contextlib.suppress(queue.Empty):
            while True:
                waiting.append(self._events.get_nowait())
        for event in waiting:
            if not isinstance(event, FromRank):
                self._events.put(event)

    def on_rank_event(self, event: RankEvent, generation: int) -> None:
        """A rank reports."""
        if generation == self._generation:
            self._heard[event.rank] = WALL.now()
            self.beats.add(event.rank)
        if isinstance(event, Recorded):
            if generation >= self._heard_from:
                self._history.take(event.rows, event.evaluations, event.epochs)
                if event.rows and generation == self._generation:
                    self.reached[event.rank] = last_place(event.rows)
                self.step = max(self.step, newest := last_step(event.rows))
                self._tell_past(newest)
        elif isinstance(event, Marked):
            self._history.mark(event.time, event.text, event.step, event.what, event.rank, event.fault)
        elif not isinstance(event, Printed | Beat) and generation == self._generation:
            if isinstance(event, Entered):
                self.topology = event.topology or self.topology
            self._events.put(event)

    def _tell_past(self, step: int) -> None:
        if self._awaited is not None and step > self._awaited[0]:
            (_, then), self._awaited = self._awaited, None
            then()

    def on_worker_lost(self, address: str) -> None:
        """Dask removed a worker."""
        if address in self.leaving:
            self.leaving = self.leaving - {address}
            self.left.add(address)
        self._events.put(WorkerLost(address, self.step))

    def on_worker_leaving(self, address: str) -> None:
        """A worker begins to close."""
        self.leaving = self.leaving | {address}
        self.when_leaving()
