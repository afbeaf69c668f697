"""Summary: one run in one row, which a comparison tabulates and a verdict is computed from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import final

import numpy as np

from scaleml.telemetry.curves import Curve, loss_curve, total_samples
from scaleml.telemetry.history import History
from scaleml.telemetry.ledger import Ledger
from scaleml.telemetry.run_like import RunLike

NAN = float("nan")
RUNNING = ("starting", "running", "paused")


@final
@dataclass(frozen=True, kw_only=True)
class Summary:
    """What one run reached and what it cost. Times in seconds on the training clock; unknown numbers are NaN.

    `speedup` is the ratio named by `speedup_by`: "time to target", or "samples/s" where no target was reached.
    `compute`, `wait` and `comm` are shares of the training ranks' wall time. `bytes_per_step` is everything that all
    ranks sent, over the steps of the training ranks. `first` is the loss before training.
    """

    strategy: str
    is_serial: bool = False
    workers: int = 1
    threads: int = 1
    cores: int = 1
    state: str = "finished"
    error: str | None = None
    kind: str = "held-out"
    first: float = NAN
    loss: float = NAN
    best: float = NAN
    score: float = NAN
    time: float = NAN
    placing: float = NAN
    time_to_target: float = NAN
    samples_to_target: float = NAN
    steps_to_target: float = NAN
    early: bool = False  # the target was passed before the second evaluation: its time is a guess
    samples_per_s: float = NAN
    speedup: float = NAN
    speedup_by: str = ""
    efficiency: float = NAN
    compute: float = NAN
    wait: float = NAN
    comm: float = NAN
    compute_per_step: float = NAN
    bytes_per_step: float = NAN
    staleness: float = 0.0
    slow: str | None = None
    faults: tuple[str, ...] = ()  # what was broken on purpose

    @property
    def name(self) -> str:
        """The strategy and where it ran, as sentences call it."""
        if self.is_serial:
            return self.strategy if self.threads == 1 else f"{self.strategy} with {self.threads} threads"
        return f"{self.strategy} on {self.workers} worker{'s' * (self.workers != 1)}"

    @property
    def failed(self) -> bool:
        return self.state == "failed"

    @property
    def running(self) -> bool:
        return self.state in RUNNING

    @property
    def reached(self) -> bool:
        return not self.failed and bool(np.isfinite(self.time_to_target))

    @property
    def diverged(self) -> bool:
        """Its loss is no longer finite, or well above where it started."""
        if np.isnan(self.loss) or np.isinf(self.loss):
            return bool(np.isfinite(self.first))
        return self.loss > 1.5 * self.first > 0

    @property
    def crowded(self) -> bool:
        """More workers than cores: its speed says nothing about a machine with a core for each."""
        return self.workers > self.cores

    @property
    def cold(self) -> float:
        """Seconds from the call to the end: placing the data, starting, training."""
        return self.time + (self.placing if np.isfinite(self.placing) else 0.0)


def summarise(runs: Iterable[RunLike], target: float | None = None) -> tuple[list[Summary], float | None]:
    """Summarise runs, finished or not, and settle the target.

    Parameters
    ----------
    runs : iterable of Run
        Or anything with their `label`, `history`, `state`, `workers` and so on.
    target : float, optional
        The loss to be reached. By default `common_target`.

    Returns
    -------
    rows : list of Summary
        With speed-ups against their baseline.
    target : float or None
        None if none was given and no run has a loss.
    """
    pairs = [(run, loss_curve(run.history)) for run in runs]
    rows = [_measure(run, curve) for run, curve in pairs]
    goal = common_target(rows) if target is None else target
    if goal is not None:
        rows = [_time(row, curve, goal) for row, (_, curve) in zip(rows, pairs, strict=True)]
    return with_speedups(rows), goal


def _measure(run: RunLike, curve: Curve) -> Summary:
    history: History = run.history
    ledger = Ledger(history)
    works, shares = ledger.workers, ledger.shares()
    steps = float(ledger.updates[works].sum())
    clock = float(run.train_seconds or 0.0) or max([0.0, *history["time"][-1:].tolist(), *curve.time[-1:].tolist()])
    samples = total_samples(history)
    return Summary(
        strategy=str(run.label),
        is_serial=bool(run.is_serial),
        workers=int(run.workers),
        threads=int(run.threads or 1),
        cores=int(run.cores),
        state=str(run.state),
        error=None if run.error is None else str(run.error),
        kind=curve.kind,
        first=float(curve.loss[0]) if len(curve.loss) else NAN,
        loss=float(curve.loss[-1]) if len(curve.loss) else NAN,
        best=curve.best(),
        score=float(curve.score[-1]) if len(curve.score) else NAN,
        time=clock or NAN,
        placing=NAN if run.placing_seconds is None else float(run.placing_seconds),
        samples_per_s=samples / clock if clock and samples else NAN,
        compute_per_step=float(ledger.compute[works].sum()) / steps if steps else NAN,
        bytes_per_step=float(ledger.bytes_sent.sum()) / steps if steps else NAN,
        staleness=float(np.average(ledger.staleness[works], weights=ledger.updates[works])) if steps else 0.0,
        slow=ledger.slow_sentence(),
        faults=tuple(change.text for change in history.changes if change.kind == "fault"),
        compute=shares["compute"],
        wait=shares["wait"],
        comm=shares["comm"],
    )


def _time(row: Summary, curve: Curve, target: float) -> Summary:
    crossing = curve.crossing(target)
    if crossing is None:
        return row
    time, samples, steps = crossing
    early = len(curve.time) > 1 and time <= curve.time[1]
    return replace(row, time_to_target=time, samples_to_target=samples, steps_to_target=steps, early=early)


def common_target(rows: Sequence[Summary]) -> float | None:
    """The loss that every finished run reached: the worst of their best ones. None if no run finished with a loss.

    Runs that never got below the loss they started from are left out, or the target would be reached at time 0.
    """
    done = [row for row in rows if row.state == "finished" and np.isfinite(row.best)]
    learnt = [row.best for row in done if not np.isfinite(row.first) or row.best < row.first]
    return max(learnt) if learnt else None


def baseline(rows: Sequence[Summary]) -> Summary | None:
    """The better of the serial runs: the first at the target, else the one with most samples a second."""
    serial = [row for row in rows if row.is_serial and not row.failed and (row.reached or row.samples_per_s > 0)]
    reached = [row for row in serial if row.reached]
    if reached:
        return min(reached, key=lambda row: row.time_to_target)
    return max(serial, key=lambda row: row.samples_per_s, default=None)


def with_speedups(rows: Sequence[Summary]) -> list[Summary]:
    """The same rows with speed-up and efficiency against their baseline."""
    base = baseline(rows)
    return [row if base is None or row.failed else _against(row, base) for row in rows]


def _against(row: Summary, base: Summary) -> Summary:
    if row.reached and base.reached and row.time_to_target > 0:
        ratio, by = base.time_to_target / row.time_to_target, "time to target"
    else:
        ratio, by = row.samples_per_s / base.samples_per_s, "samples/s"
    return replace(row, speedup=ratio, speedup_by=by, efficiency=ratio / row.workers)
