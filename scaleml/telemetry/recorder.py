"""Recorder: a rank's rows of the history, one an interval, built in the hot loop, fetched from another thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import isfinite
from typing import Final, Protocol

import numpy as np

INTERVAL: Final = 0.005
"""Seconds: steps shorter than this share a row, so a rank writes about 200 rows a second at most."""


class MeterLike(Protocol):
    """What is read of a rank's meter: see `comm.meter.Meter`."""

    wait: float
    comm: float
    bytes_sent: int
    bytes_received: int
    waited: list[float]

    def reset(self) -> None: ...


class Recorder:
    """Collects a rank's rows of the history.

    The rank's thread adds, another thread drains; a deque's ends are safe for that.

    Parameters
    ----------
    rank : int
        The rank that records.
    meter : Meter
        The group's seconds and bytes; read and reset at each row.

    Attributes
    ----------
    compute, apply : float
        Seconds since the last row.
    loss_sum, weight, staleness, updates : float
        Sums since the last row.
    noise, signal, noise_weight, biased : float
        Sums of estimates of the gradient's noise since the last row, see `telemetry.columns`.
    samples, step : int
        Rows of data consumed so far; steps of which there is a row.
    last : float
        What the training clock showed at the last row.
    due : float
        When the next row is to be written: the caller flushes at the first step that ends after it.
    interval : float
        Seconds from one row to the next.
    before_row : callable or None
        Called before a row is written; adds to it what is not known before, and returns for how many seconds that took.
    """

    def __init__(self, rank: int, meter: MeterLike) -> None:
        self.rank = rank
        self.meter = meter
        self.compute = self.apply = 0.0
        self.loss_sum = self.weight = 0.0
        self.staleness = 0.0
        self.updates = 0
        self.noise = self.signal = self.noise_weight = self.biased = 0.0
        self.samples = self.step = 0
        self.interval = INTERVAL
        self.before_row: Callable[[], float] | None = None
        self.start = self.excluded = self.last = 0.0
        self._since = self.due = 0.0
        self._rows: deque[tuple[float, ...]] = deque()
        self._evaluations: deque[tuple[float, ...]] = deque()
        self._epochs: deque[tuple[float, ...]] = deque()

    def begin(self, now: float, clock: float = 0.0) -> None:
        """Start the training clock, at what it showed when others trained before this rank."""
        self.start, self._since = now - clock, now
        self.last = clock
        self.due = now + self.interval
        self.meter.reset()

    def clock(self, now: float) -> float:
        """Return the seconds of training so far: wall time less what was excluded."""
        return now - self.start - self.excluded

    def exclude(self, seconds: float) -> None:
        """Take ``seconds`` that just passed (an evaluation, a pause) off the training clock."""
        self.excluded += seconds
        self._since += seconds

    def exclude_waiting(self, seconds: float) -> None:
        """Take up to ``seconds`` of the waiting since the last row off the clock: who was waited for was called away."""
        meter = self.meter
        seconds = min(seconds, meter.wait)
        if seconds > 0:
            left = 1.0 - seconds / meter.wait
            meter.wait *= left
            meter.waited[:] = [waited * left for waited in meter.waited]
            self.exclude(seconds)

    def skip(self, seconds: float) -> None:
        """Exclude ``seconds`` that just passed, and what the group spent meanwhile."""
        self.exclude(seconds)
        self.meter.reset()

    @property
    def since(self) -> float:
        """When the last row was written, by the clock that its times are taken from; later, where time was excluded."""
        return self._since

    def unknown(self, now: float) -> float:
        """Return the seconds since the last row of which nothing is known."""
        meter = self.meter
        return now - self._since - (self.compute + meter.wait + meter.comm + self.apply)

    def flush(self, now: float, step: int, epoch: float) -> None:
        """Write what has gathered since the last row."""
        if self.before_row is not None:
            now += self.before_row()
        meter, self.step = self.meter, step
        waited = meter.waited
        most = max(range(len(waited)), key=waited.__getitem__) if meter.wait > 0 else -1
        self._rows.append(
            (
                self.rank,
                step,
                epoch,
                self.clock(now),
                self.samples,
                self.loss_sum / self.weight if self.weight else np.nan,
                self.staleness / max(1, self.updates),
                self.compute,
                meter.wait,
                meter.comm,
                self.apply,
                max(0.0, self.unknown(now)),
                meter.bytes_sent,
                meter.bytes_received,
                most if most >= 0 and waited[most] > 0 else -1,
                self.updates,
                self.noise,
                self.signal,
                self.noise_weight,
                self.biased,
            )
        )
        self.compute = self.apply = self.loss_sum = self.weight = self.staleness = 0.0
        self.noise = self.signal = self.noise_weight = self.biased = 0.0
        self.updates = 0
        self._since = now
        self.last = self.clock(now)
        self.due = now + self.interval
        self.meter.reset()

    def noisy(self, noise: float, signal: float, weight: float, *, biased: bool = False) -> None:
        """Add an estimate of the gradient's noise, `weight` times; one that is not finite (squares may overflow) is left out.

        It gets a row of its own: by how much single estimates scatter is what their mean is trusted by.
        """
        if isfinite(noise) and isfinite(signal):
            self.noise += noise
            self.signal += signal
            self.noise_weight += weight
            self.biased += biased
            self.due = 0.0

    def evaluated(self, time: float, samples: float, step: float, loss: float, score: float) -> None:
        """Note a held-out evaluation."""
        self._evaluations.append((time, samples, step, loss, score))

    def epoch_over(self, number: int, loss: float, score: float, is_last: bool) -> None:
        """Note the end of an epoch; see `History.add_epoch`."""
        self._epochs.append((number, loss, score, is_last))

    def drain_epochs(self) -> list[tuple[float, ...]]:
        """Return all new ends of epochs."""
        return _empty(self._epochs)

    def drain(self) -> tuple[bytes, list[tuple[float, ...]]]:
        """Return all new rows, packed as float64, and all new evaluations."""
        return _pack(self._rows), list(_empty(self._evaluations))


def _empty(queue: deque[tuple[float, ...]]) -> list[tuple[float, ...]]:
    rows = []
    while queue:
        rows.append(queue.popleft())
    return rows


def _pack(queue: deque[tuple[float, ...]]) -> bytes:
    rows = _empty(queue)
    return np.array(rows, np.float64).tobytes() if rows else b""
