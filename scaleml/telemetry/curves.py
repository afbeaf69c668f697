"""Curves over a run's history: loss against time, samples and steps; throughput; when a target was reached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

import numpy as np

from scaleml.telemetry.history import COLUMNS, History

if TYPE_CHECKING:
    from numpy.typing import NDArray


HOLD: Final = 3
"""Evaluations over which a target must hold on average."""


@final
@dataclass(frozen=True)
class Curve:
    """Loss along a run.

    All arrays are (m,): training clock (s), rows consumed by all ranks, steps, loss, score (NaN where there is none).
    """

    time: NDArray[np.float64]
    samples: NDArray[np.float64]
    step: NDArray[np.float64]
    loss: NDArray[np.float64]
    score: NDArray[np.float64]
    kind: str  # "held-out" or "training"

    def best(self) -> float:
        """The lowest finite loss, or NaN."""
        finite = self.loss[np.isfinite(self.loss)]
        return float(finite.min()) if len(finite) else float("nan")

    def end(self) -> float:
        """The mean of the last few losses: what the run ended at, without the luck of one evaluation. NaN without any."""
        return float(self.loss[-HOLD:].mean()) if len(self.loss) else float("nan")

    def held(self) -> NDArray[np.float64]:
        """The mean of each loss and those that follow it, `HOLD` in all; (m - HOLD + 1,).

        Of a curve of so few, all but the loss before training have to do.
        """
        if not len(self.loss):
            return np.empty(0)
        width = max(1, min(HOLD, len(self.loss) - 1))
        with np.errstate(invalid="ignore"):
            return np.lib.stride_tricks.sliding_window_view(self.loss, width).mean(axis=1)

    def lowest_held(self) -> float:
        """The lowest target that this curve reaches and holds, or NaN."""
        held = np.maximum(self.held(), self.loss[: len(self.held())])
        finite = held[np.isfinite(held)]
        return float(finite.min()) if len(finite) else float("nan")

    def crossing(self, target: float) -> tuple[float, float, float] | None:
        """Where the loss came down to `target` and stayed: (time, samples, step), linear between measurements, or None.

        That is the first evaluation at or below the target whose mean with the next few is, too: a lucky dip is not there yet.

        Examples
        --------
        >>> time, loss = np.arange(5.0), np.array([1.0, 0.4, 1.0, 0.5, 0.5])
        >>> Curve(time, 100 * time, 10 * time, loss, 1 - loss, "held-out").crossing(0.75) is None
        False
        >>> Curve(time, 100 * time, 10 * time, loss, 1 - loss, "held-out").crossing(0.4) is None
        True
        """
        held = self.held()
        reached = np.flatnonzero((self.loss[: len(held)] <= target) & (held <= target))
        if not len(reached):
            return None
        i = int(reached[0])
        here = (float(self.time[i]), float(self.samples[i]), float(self.step[i]))
        if i == 0 or not np.isfinite(self.loss[i - 1]) or self.loss[i - 1] <= target:
            return here
        part = float((self.loss[i - 1] - target) / (self.loss[i - 1] - self.loss[i]))
        before = (float(self.time[i - 1]), float(self.samples[i - 1]), float(self.step[i - 1]))
        return tuple(a + part * (b - a) for a, b in zip(before, here, strict=True))  # type: ignore[return-value]


def loss_curve(history: History) -> Curve:
    """The held-out loss if it was ever evaluated, else the training loss."""
    found = history.evaluations
    if not len(found["loss"]):
        return training_curve(history)
    order = np.argsort(found["time"], kind="stable")
    return Curve(**{name: values[order] for name, values in found.items()}, kind="held-out")


def median_curve(curves: Sequence[Curve], points: int = 60) -> Curve:
    """The median of several rounds: at equal shares of the rows that all of them consumed.

    Where there is but one, that one; a curve of other kind than the first, or without points, is left out.
    """
    known = [curve for curve in curves if len(curve.loss) > 1 and curve.kind == curves[0].kind]
    if len(known) < 2:
        return known[0] if known else curves[0]
    until = min(float(curve.samples[-1]) for curve in known)
    at = np.linspace(max(float(curve.samples[0]) for curve in known), until, min(points, *(len(c.loss) for c in known)))
    middles = {
        name: np.median([np.interp(at, curve.samples, getattr(curve, name)) for curve in known], axis=0)
        for name in ("time", "step", "loss", "score")
    }
    return Curve(samples=at, kind=known[0].kind, **middles)


def training_curve(history: History, points: int = 200) -> Curve:
    """The training loss of all ranks, averaged over at most `points` groups of neighbouring rows."""
    rows = history.rows
    rank, step, time, loss, updates = (
        rows[:, COLUMNS.index(name)] for name in ("rank", "step", "time", "loss", "updates")
    )
    gained = _gains(rank, rows[:, COLUMNS.index("samples")])
    knows = np.isin(rank, rank[np.isfinite(loss)])  # a rank that never had a loss is a server or an early stage
    weight = np.where(knows, np.maximum(gained, 0.0), 0.0)
    if not (weight > 0).any():  # the stage that knows the loss is not the one that reads the data
        weight = np.where(knows, updates, 0.0)
    order = np.argsort(time, kind="stable")
    done = np.cumsum(gained[order])
    used = order[weight[order] > 0]
    done = done[weight[order] > 0]
    if not len(used):
        nothing = np.empty(0)
        return Curve(nothing, nothing, nothing, nothing, nothing, "training")
    starts = np.unique(np.linspace(0, len(used), min(points, len(used)), endpoint=False).astype(np.int64))
    ends = np.r_[starts[1:], len(used)] - 1
    mean = np.add.reduceat(loss[used] * weight[used], starts) / np.add.reduceat(weight[used], starts)
    return Curve(
        time[used][ends],
        done[ends],
        np.maximum.reduceat(step[used], starts),
        mean,
        np.full(len(starts), np.nan),
        "training",
    )


def throughput_curve(history: History, points: int = 60) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rows a second of all ranks over the training clock: (s, rows/s), each at most (points + 2,)."""
    rows = history.rows
    time, samples = rows[:, COLUMNS.index("time")], rows[:, COLUMNS.index("samples")]
    rank = rows[:, COLUMNS.index("rank")]
    steps = len(np.unique(time))
    if steps < 2 or time.max() <= 0:
        return np.empty(0), np.empty(0)
    edges = np.linspace(0.0, time.max(), min(points, max(1, steps // max(1, 2 * len(np.unique(rank))))) + 1)
    total = np.zeros(len(edges))
    for one in np.unique(rank):  # interpolated, so that a row longer than an interval is spread over it
        mine = rank == one
        order = np.argsort(time[mine], kind="stable")
        total += np.interp(edges, np.r_[0.0, time[mine][order]], np.r_[0.0, samples[mine][order]])
    rate = np.maximum(np.diff(total), 0.0) / np.diff(edges)
    return np.r_[0.0, (edges[1:] + edges[:-1]) / 2, edges[-1]], np.r_[rate[0], rate, rate[-1]]


def total_samples(history: History) -> float:
    """Rows consumed so far by all ranks together."""
    rows = history.rows
    newest: dict[float, float] = dict(
        zip(rows[:, COLUMNS.index("rank")].tolist(), rows[:, COLUMNS.index("samples")].tolist(), strict=True)
    )
    return float(sum(newest.values()))


def _gains(rank: NDArray[np.float64], samples: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows that each history row added to its rank's count; negative where a rank was rolled back."""
    order = np.argsort(rank, kind="stable")
    first = np.r_[True, np.diff(rank[order]) != 0] if len(rank) else np.empty(0, dtype=bool)
    gained = np.empty(len(rank))
    gained[order] = np.where(first, samples[order], np.diff(samples[order], prepend=0.0))
    return gained
