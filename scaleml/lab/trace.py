"""A run as the lab draws it: read row by row as it grows, kept small enough to be drawn ten times a second."""

from __future__ import annotations

from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from scaleml.telemetry import COLUMNS, History, Ledger
from scaleml.telemetry.curves import Curve, loss_curve, throughput_curve, training_curve
from scaleml.telemetry.gauge import Gauge, Reading

POINTS = 500
"""The most points of a line."""
_ROWS = 2_000
_AT = {name: i for i, name in enumerate(COLUMNS)}
_NEWEST = [_AT[name] for name in ("step", "epoch", "time", "samples")]
_SUMMED = [
    _AT[name] for name in ("compute", "wait", "comm", "apply", "other", "bytes_sent", "bytes_received", "updates")
]


@final
class Trace:
    """Follows one run at a cost that does not grow with its length.

    Parameters
    ----------
    run : Run
        Or anything with its `history`, `state` and `train_seconds`.
    window : float
        Seconds that count as now.

    Attributes
    ----------
    now : Reading
        How the run stood at the last look.
    curve : Curve or None
        The loss as it was drawn last.
    complete : bool
        Whether the run is over and all of it was seen.
    """

    def __init__(self, run: Any, window: float = 3.0) -> None:
        self.run = run
        self._gauge = Gauge(run, window)
        self._thin = History(_ROWS)
        self._cursor = 0
        self._totals: dict[tuple[int, int], NDArray[np.float64]] = {}
        self._recent: NDArray[np.float64] = np.empty((0, len(COLUMNS)))
        self._window = window
        self.now: Reading = self._gauge.read()
        self.curve: Curve | None = None
        self.complete = False
        self._fresh = True

    def look(self) -> bool:
        """Take in what is new; whether there was anything."""
        before = self.now.state
        self.now = self._gauge.read()
        rows, cursor = self.run.history.since(self._cursor)
        changed = cursor > self._cursor or self.now.state != before or self._fresh
        self.complete = self.now.over and not changed
        self._cursor, self._fresh = cursor, False
        if len(rows):
            self._thin.append_rows(rows)
            self._add(rows)
            recent = np.concatenate([self._recent, rows])
            self._recent = recent[recent[:, _AT["time"]] >= recent[:, _AT["time"]].max() - self._window]
        return changed

    def ledger(self) -> Ledger:
        """Where the time of every rank went, from the first step on: exact, from a few summed rows."""
        return Ledger(np.array(list(self._totals.values()), np.float64).reshape(-1, len(COLUMNS)))

    def recent(self) -> Ledger:
        """Where it went in the last seconds."""
        return Ledger(self._recent)

    def losses(self, kind: str) -> Curve:
        """Loss along the run: ``"held-out"`` as far as it was evaluated, else ``"training"``."""
        if kind == "training":
            return training_curve(self._thin)
        found = (
            loss_curve(self.run.history) if len(self.run.history.evaluations["loss"]) else training_curve(self._thin)
        )
        return _thinned(found)

    def throughput(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Rows a second of all ranks, along the training clock."""
        return throughput_curve(self._thin, 30)

    def staleness(self, bins: int = 60) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean staleness of the updates, along the training clock."""
        rows = self._thin.rows
        updates, time = rows[:, _AT["updates"]], rows[:, _AT["time"]]
        rows, updates, time = rows[updates > 0], updates[updates > 0], time[updates > 0]
        if not len(rows) or time.max() <= 0:
            return np.empty(0), np.empty(0)
        edges = np.linspace(0.0, time.max(), min(bins, max(1, len(rows) // 4)) + 1)
        place = np.clip(np.searchsorted(edges, time, side="left") - 1, 0, len(edges) - 2)
        weight = np.bincount(place, updates, len(edges) - 1)
        sums = np.bincount(place, updates * np.nan_to_num(rows[:, _AT["staleness"]]), len(edges) - 1)
        known = weight > 0
        return edges[1:][known], sums[known] / weight[known]

    def _add(self, rows: NDArray[np.float64]) -> None:
        """Sum rows of the same rank that waited for the same one."""
        keys = rows[:, [_AT["rank"], _AT["waited_for"]]].astype(np.int64)
        for rank, peer in {(int(rank), int(peer)) for rank, peer in keys}:
            of = rows[(keys[:, 0] == rank) & (keys[:, 1] == peer)]
            total = self._totals.setdefault((rank, peer), np.zeros(len(COLUMNS)))
            stale, updates = total[_AT["staleness"]] * total[_AT["updates"]], of[:, _AT["updates"]]
            stale += float(np.nan_to_num(of[:, _AT["staleness"]]) @ updates)
            total[_SUMMED] += of[:, _SUMMED].sum(axis=0)
            total[_AT["staleness"]] = stale / max(1.0, float(total[_AT["updates"]]))
            total[_AT["rank"]], total[_AT["waited_for"]] = rank, peer
        for rank in {rank for rank, _ in self._totals}:
            newest = rows[keys[:, 0] == rank][-1:]
            for key, total in self._totals.items():
                if key[0] == rank and len(newest):
                    total[_NEWEST] = newest[0, _NEWEST]


def _thinned(curve: Curve) -> Curve:
    if len(curve.loss) <= POINTS:
        return curve
    keep = np.unique(np.linspace(0, len(curve.loss) - 1, POINTS).astype(np.int64))
    time, samples, step, loss, score = (
        getattr(curve, name)[keep] for name in ("time", "samples", "step", "loss", "score")
    )
    return Curve(time, samples, step, loss, score, curve.kind)
