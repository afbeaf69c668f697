"""Summary: one run in one row, which a comparison tabulates and a verdict is computed from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

import numpy as np

from scaleml.telemetry.curves import Curve, loss_curve, total_samples
from scaleml.telemetry.history import History
from scaleml.telemetry.ledger import Ledger
from scaleml.telemetry.noise_scale import noise_reason
from scaleml.telemetry.overfitting import find_overfitting
from scaleml.telemetry.run_like import RUNNING, RunLike

NAN = float("nan")


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
    changed: tuple[str, ...] = ()  # what a person changed or broke in mid-run
    optimizer: str = ""
    learning_rate: float = NAN
    rows_an_update: int = 0
    end: float = NAN  # the mean of the last few losses
    held: float = NAN  # the lowest loss that was reached and held
    rounds: int = 1
    suspect: str = ""  # what of the data would explain that it diverged
    score_name: str = "score"
    baseline: float = NAN  # what knowing nothing scores
    overfits: str = ""  # since when its held-out loss rises, in words
    noise: str = ""  # up to what batch a larger one pays, in words
    low: float = NAN  # of the speed-up, with the confidence that all claims together have
    high: float = NAN

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

    def ends_far_above(self, target: float) -> bool:
        """Whether its loss ended far above a target that it had reached."""
        room = 0.25 * max(0.0, self.first - self.best) if np.isfinite(self.first) else np.inf
        return not self.end <= target + min(room, 0.5 * abs(target))

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


def measure(run: RunLike) -> tuple[Summary, Curve]:
    """Summarise one run, finished or not, but for what depends on a target; with its curve of losses."""
    curve = loss_curve(run.history)
    return _measure(run, curve), curve


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
        end=curve.end(),
        held=curve.lowest_held(),
        optimizer=str(run.optimizer),
        learning_rate=float(run.learning_rate),
        rows_an_update=int(run.rows_an_update),
        changed=_changed(run),
        suspect=run.suspect,
        score_name=run.score_name,
        baseline=NAN if run.baseline_score is None else float(run.baseline_score),
        overfits=str(find_overfitting(history) or ""),
        noise=noise_reason(history.noise_scale, int(run.rows_an_update)),
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


def _changed(run: RunLike) -> tuple[str, ...]:
    """What a person changed or broke while it ran: not the faults that it was started with."""
    planned = list(run.planned_faults)
    return tuple(change.text for change in run.history.changes if change.kind != "fault" or change.fault not in planned)


def timed(row: Summary, curve: Curve, target: float) -> Summary:
    """Return the same with when it reached the target, if it did."""
    crossing = curve.crossing(target)
    if crossing is None:
        return row
    time, samples, steps = crossing
    early = len(curve.time) > 1 and time <= curve.time[1]
    return replace(row, time_to_target=time, samples_to_target=samples, steps_to_target=steps, early=early)


def common_target(rows: Sequence[Summary]) -> float | None:
    """The loss that every finished run reached and held: the worst of their best ones. None if no run finished with a loss.

    Runs that never got below the loss they started from are left out, or the target would be reached at time 0.
    """
    done = [row for row in rows if row.state == "finished" and np.isfinite(row.held)]
    learnt = [row.held for row in done if not np.isfinite(row.first) or row.held < row.first]
    return max(learnt) if learnt else None
