"""Binned curves over the training clock, which grow at a cost of what is new: sums over equal intervals, merged when there are many."""

from __future__ import annotations

from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from scaleml.telemetry import COLUMNS

MOST: Final = 64
"""The most intervals; then neighbours are merged two by two."""
FIRST: Final = 0.25
"""Seconds of an interval at first."""
SILENT: Final = 1.0
"""Seconds behind the others after which a rank counts as done."""
_AT = {name: i for i, name in enumerate(COLUMNS)}
_NOTHING: Final = (np.empty(0), np.empty(0))

Points = tuple[NDArray[np.float64], NDArray[np.float64]]


@final
class Rates:
    """Rows a second of all ranks: each rank's count at the edges of the intervals, interpolated between its history rows."""

    def __init__(self) -> None:
        self._width = FIRST
        self._last: dict[int, tuple[float, float]] = {}
        self._edges: dict[int, NDArray[np.float64]] = {}

    def add(self, rows: NDArray[np.float64]) -> None:
        """Take in new rows of the history."""
        for rank in np.unique(rows[:, _AT["rank"]]).astype(int).tolist():
            mine = rows[rows[:, _AT["rank"]] == rank]
            if mine[-1, _AT["samples"]] > 0:  # a server consumes none
                self._extend(rank, mine[:, _AT["time"]], mine[:, _AT["samples"]])

    def points(self) -> Points:
        """Return the middles of the intervals that all ranks have passed (s), and rows a second in each."""
        front = max((len(edges) for edges in self._edges.values()), default=0)
        behind = front - 1 - SILENT / self._width
        known = min((len(edges) for edges in self._edges.values() if len(edges) > behind), default=0)
        if known < 2:
            return _NOTHING
        total = np.zeros(known)
        for edges in self._edges.values():
            total += np.concatenate([edges[:known], np.full(max(0, known - len(edges)), edges[-1])])
        rate = np.maximum(np.diff(total), 0.0) / self._width
        middles = self._width * (np.arange(known - 1) + 0.5)
        return np.r_[0.0, middles, self._width * (known - 1)], np.r_[rate[0], rate, rate[-1]]

    def _extend(self, rank: int, time: NDArray[np.float64], samples: NDArray[np.float64]) -> None:
        edges = self._edges.setdefault(rank, np.zeros(1))
        before, count = self._last.get(rank, (0.0, 0.0))
        self._last[rank] = (float(time[-1]), float(samples[-1]))
        while time[-1] / self._width > MOST:
            self._width *= 2
            self._edges = {one: values[::2] for one, values in self._edges.items()}
            edges = self._edges[rank]
        new = self._width * np.arange(len(edges), int(time[-1] / self._width) + 1)
        if len(new):
            reached = np.interp(new, np.r_[before, time], np.r_[count, samples])
            self._edges[rank] = np.concatenate([edges, reached])


@final
class Means:
    """Mean staleness of the updates in each interval."""

    def __init__(self) -> None:
        self._width = FIRST
        self._weights = np.zeros(MOST)
        self._sums = np.zeros(MOST)
        self._until = 0.0

    @property
    def any(self) -> bool:
        """Whether any update was stale."""
        return bool(self._sums.any())

    def add(self, rows: NDArray[np.float64]) -> None:
        """Take in new rows of the history."""
        rows = rows[rows[:, _AT["updates"]] > 0]
        if not len(rows):
            return
        time, updates = rows[:, _AT["time"]], rows[:, _AT["updates"]]
        self._until = max(self._until, float(time.max()))
        while self._until / self._width > MOST:
            self._width *= 2
            self._weights, self._sums = _halved(self._weights), _halved(self._sums)
        place = np.clip(np.ceil(time / self._width).astype(np.int64) - 1, 0, MOST - 1)
        self._weights += np.bincount(place, updates, MOST)
        self._sums += np.bincount(place, updates * np.nan_to_num(rows[:, _AT["staleness"]]), MOST)

    def points(self, whole: bool) -> Points:
        """Return the ends of the intervals that are over (s) and the mean in each with an update; `whole`: of all."""
        done = MOST if whole else int(self._until / self._width)
        known = np.flatnonzero(self._weights[:done] > 0)
        return np.asarray(self._width * (known + 1.0)), self._sums[known] / self._weights[known]


def _halved(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Merge neighbours two by two."""
    return np.concatenate([sums.reshape(-1, 2).sum(axis=1), np.zeros(len(sums) // 2)])
