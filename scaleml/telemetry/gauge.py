"""Gauge: how a run is doing right now, read off its history as that grows."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import numpy as np

from scaleml.telemetry.history import COLUMNS
from scaleml.telemetry.ledger import Ledger
from scaleml.telemetry.run_like import RunLike

if TYPE_CHECKING:
    from numpy.typing import NDArray

NAN = float("nan")
_RANK, _TIME, _SAMPLES, _LOSS, _UPDATES = (
    COLUMNS.index(name) for name in ("rank", "time", "samples", "loss", "updates")
)


@final
@dataclass(frozen=True)
class Reading:
    """One look at a run; unknown numbers are NaN. `shares` and `slow` (a rank or None) are of the last few seconds."""

    state: str
    time: float
    samples: float
    samples_per_s: float
    loss: float
    held_out: float
    staleness: float
    shares: dict[str, float]
    slow: int | None

    @property
    def over(self) -> bool:
        """Whether the run has ended, one way or another."""
        return self.state in ("finished", "stopped", "failed")


@final
class Gauge:
    """Reads a run again and again, each time only the rows that are new.

    Parameters
    ----------
    run : Run
        Or anything with its `history`, `state` and `train_seconds`.
    window : float, default 3.0
        Seconds of training that rates and shares are taken over.

    Attributes
    ----------
    new : (n, 20) float array
        The rows of the history that came with the last look.
    recent : Ledger
        Where the time of the last `window` seconds went.
    """

    def __init__(self, run: RunLike, window: float = 3.0) -> None:
        self.run = run
        self._window = window
        self._cursor = 0
        self._recent: NDArray[np.float64] = np.empty((0, len(COLUMNS)))
        self._newest: dict[float, float] = {}
        self._totals: deque[tuple[float, float]] = deque([(0.0, 0.0)])
        self._evaluations = 0
        self._last: Reading | None = None
        self.new = self._recent
        self.recent = Ledger(self._recent)

    def read(self) -> Reading:
        """Look at the run; where nothing is new that costs next to nothing."""
        history = self.run.history
        state = str(self.run.state)  # before the rows: what is over has written all of them
        self.new, self._cursor = history.since(self._cursor)
        held_out = history.evaluations["loss"]
        last = self._last
        if last is None or len(self.new) or len(held_out) > self._evaluations or state != last.state:
            self._last, self._evaluations = self._read(state, self.new, held_out), len(held_out)
            return self._last
        return last

    def _read(self, state: str, rows: NDArray[np.float64], held_out: NDArray[np.float64]) -> Reading:
        if len(rows):
            self._newest.update(zip(rows[:, _RANK].tolist(), rows[:, _SAMPLES].tolist(), strict=True))
            recent = np.concatenate([self._recent, rows])
            self._recent = recent[recent[:, _TIME] >= recent[:, _TIME].max() - self._window]
        time = float(self._recent[:, _TIME].max()) if len(self._recent) else 0.0
        samples = float(sum(self._newest.values()))
        ledger = self.recent = Ledger(self._recent) if len(rows) else self.recent
        works = ledger.workers
        updates = float(ledger.updates[works].sum())
        return Reading(
            state=state,
            time=float(self.run.train_seconds or 0.0) or time,
            samples=samples,
            samples_per_s=self._rate(time, samples),
            loss=_mean(self._recent[:, _LOSS], self._recent[:, _UPDATES]),
            held_out=float(held_out[-1]) if len(held_out) else NAN,
            staleness=float(ledger.staleness[works] @ ledger.updates[works]) / updates if updates else 0.0,
            shares=ledger.shares(),
            slow=ledger.slow,
        )

    def _rate(self, time: float, samples: float) -> float:
        totals = self._totals
        if time > totals[-1][0]:
            totals.append((time, samples))
        while len(totals) > 2 and totals[1][0] < time - self._window:
            totals.popleft()
        (start, before), (end, after) = totals[0], totals[-1]
        return max(0.0, after - before) / (end - start) if end > start else NAN


def _mean(values: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    known = np.isfinite(values) & (weights > 0)
    return float(np.average(values[known], weights=weights[known])) if known.any() else NAN
