"""Run trace: a live run's history read row by row as it grows, and thinned, so that it can be drawn ten times a second."""

from __future__ import annotations

from typing import final

import numpy as np
from numpy.typing import NDArray

from scaleml.lab.bins import Means, Points, Rates
from scaleml.lab.slow_links import SlowLinks
from scaleml.telemetry import COLUMNS, History, Ledger
from scaleml.telemetry.columns import SUMMED
from scaleml.telemetry.curves import Curve, loss_curve, throughput_curve, training_curve
from scaleml.telemetry.gauge import Gauge, Reading
from scaleml.telemetry.noise_scale import NoiseCurve, NoiseScale, noise_curve
from scaleml.telemetry.run_like import RunLike

POINTS = 500
"""The most points of a line."""
_ROWS = 2_000
_AT = {name: i for i, name in enumerate(COLUMNS)}
_NEWEST = [_AT[name] for name in ("step", "epoch", "time", "samples")]


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
    total, recent : Ledger
        Where the time of every rank went, from the first step on (exact, from a few summed rows), and in the last seconds.
    links : SlowLinks
        What slow links cost.
    curve : Curve or None
        The loss as it was drawn last.
    complete : bool
        Whether the run is over and all of it was seen.
    """

    def __init__(self, run: RunLike, window: float = 3.0) -> None:
        self.run = run
        self.links = SlowLinks()
        self._gauge = Gauge(run, window)
        self._thin = History(_ROWS)
        self._totals: dict[tuple[int, int], NDArray[np.float64]] = {}
        self._rates = Rates()
        self._staleness = Means()
        self._noise: NoiseCurve | None = None
        self._measured = 0
        self._drawn = 0
        self.curve: Curve | None = None
        self.complete = False
        self.total = Ledger(self._thin)
        self._evaluations = -1
        self._fresh = True
        self.now: Reading = self._gauge.read()
        self._take(self._gauge.new)

    def look(self) -> bool:
        """Take in what is new; whether there was anything."""
        before = self.now
        self.now = self._gauge.read()
        self._take(self._gauge.new)
        changed = self.now is not before or self._fresh
        self.complete = self.now.over and not changed
        self._fresh = False
        return changed

    @property
    def recent(self) -> Ledger:
        """Where the time of the last seconds went."""
        return self._gauge.recent

    def losses(self) -> Curve:
        """Loss along the run: held-out, if that is ever evaluated, else training."""
        evaluations = len(self.run.history.evaluations["loss"])
        if not evaluations:
            return training_curve(self._thin)
        if self.curve is None or self._evaluations != evaluations:
            self._evaluations = evaluations
            return _thinned(loss_curve(self.run.history))
        return self.curve

    @property
    def best(self) -> float:
        """The lowest held-out loss so far; infinite before there is one."""
        return float(np.min(self.run.history.evaluations["loss"], initial=np.inf))

    def throughput(self) -> Points:
        """Rows a second of all ranks, along the training clock."""
        return throughput_curve(self.run.history, 30) if self.now.over else self._rates.points()

    def staleness(self) -> Points:
        """Mean staleness of the updates, along the training clock."""
        return self._staleness.points(whole=self.now.over)

    @property
    def is_stale(self) -> bool:
        """Whether any update was."""
        return self._staleness.any

    def noise(self) -> NoiseCurve:
        """The gradient noise scale, along the rows consumed; renewed when there are a tenth more estimates, and at the end."""
        if self._noise is None or self._measured > (1.0 if self.now.over else 1.1) * self._drawn:
            self._noise, self._drawn = noise_curve(self._thin.rows, POINTS // 10), self._measured
        return self._noise

    @property
    def noise_scale(self) -> NoiseScale:
        """The gradient noise scale, where the run stands now."""
        return self._thin.noise_scale

    def _take(self, rows: NDArray[np.float64]) -> None:
        self.links.hear(self.run.history.changes)
        if not len(rows):
            return
        self._thin.append_rows(rows)
        self._measured += int(np.count_nonzero(rows[:, _AT["noise_weight"]]))
        self._rates.add(rows)
        self._staleness.add(rows)
        self._add(rows)
        self.links.add(rows)
        self.total = Ledger(np.array(list(self._totals.values()), np.float64).reshape(-1, len(COLUMNS)))

    def _add(self, rows: NDArray[np.float64]) -> None:
        """Sum rows of the same rank that waited for the same one."""
        keys = rows[:, [_AT["rank"], _AT["waited_for"]]].astype(np.int64)
        for rank, peer in set(map(tuple, keys.tolist())):
            of = rows[(keys[:, 0] == rank) & (keys[:, 1] == peer)]
            total = self._totals.setdefault((rank, peer), np.zeros(len(COLUMNS)))
            stale, updates = total[_AT["staleness"]] * total[_AT["updates"]], of[:, _AT["updates"]]
            stale += float(np.nan_to_num(of[:, _AT["staleness"]]) @ updates)
            total[SUMMED] += of[:, SUMMED].sum(axis=0)
            total[_AT["staleness"]] = stale / max(1.0, float(total[_AT["updates"]]))
            total[_AT["rank"]], total[_AT["waited_for"]] = rank, peer
        newest = dict(zip(keys[:, 0].tolist(), rows[:, _NEWEST], strict=True))
        for (rank, _), total in self._totals.items():
            if rank in newest:
                total[_NEWEST] = newest[rank]


def _thinned(curve: Curve) -> Curve:
    if len(curve.loss) <= POINTS:
        return curve
    keep = np.unique(np.linspace(0, len(curve.loss) - 1, POINTS).astype(np.int64))
    time, samples, step, loss, score = (
        getattr(curve, name)[keep] for name in ("time", "samples", "step", "loss", "score")
    )
    return Curve(time, samples, step, loss, score, curve.kind)
