"""Run: what a user holds while ranks train, and afterwards."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import fields
from typing import TYPE_CHECKING, final

from scaleml import strategies
from scaleml.api.followed import Followed
from scaleml.api.run_controls import RunControls
from scaleml.api.run_facts import RunFacts
from scaleml.api.run_results import RunResults
from scaleml.api.sender import Sender
from scaleml.api.strategy_switch import called
from scaleml.arrays import Array
from scaleml.cluster.run_driver import RunDriver
from scaleml.escaping import escape, printable
from scaleml.runtime.errors import NonFinite
from scaleml.runtime.plan import Plan
from scaleml.runtime.serialization import describe
from scaleml.telemetry import Ledger
from scaleml.telemetry.bundle import bundle
from scaleml.telemetry.headline import divergence, has_diverged, headline_fragment, standing
from scaleml.telemetry.recorded_run import RecordedRun
from scaleml.telemetry.report import run_fragment, run_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@final
class Run(RunControls, Followed, RunResults):
    """One training run, live or over. Made by ``scaleml.start`` and ``scaleml.train``.

    Attributes
    ----------
    label : str
        The strategy that it was started with (and what a ``Trial`` changed), as its repr; or what it was renamed to.
    first_label : str
        That it began with: its colour follows it.
    history : History
        What happened, row by row; grows while the run lives.
    hosts, cores : int
        The hosts of the ranks that it was started with, and the cores of those.
    placing_seconds : float
        What stands beside a cold start: bringing the data to the workers, placing the ranks.
    total_samples : int
        Rows that all ranks together will have consumed at the end.
    n_params : int
        Parameters of the model.
    optimizer : str
        That it was started with, as its repr.
    learning_rate : float
        Of that optimizer.
    rows_an_update : int
        Rows that one update of the parameters was computed from at the start.
    planned_faults : tuple of dict
        What it was started to be broken with, as the history's changes tell of it.
    place : Place or None
        Where it stands in a comparison: which round, whose.
    skipped, interrupted : bool
        Whether `skip` was called; whether Ctrl-C came while somebody waited for it.
    suspect : str
        What of the data would explain that it diverges, if it does.
    score_name : str
        What the held-out score is: ``"accuracy"``, ``"R2"``, or the scorer's name.
    baseline_score : float or None
        The held-out score of always saying the class that most rows to train on have; of R2 that of the mean, 0; None if unknown.
    """

    def __init__(self, driver: RunDriver, facts: RunFacts, sender: Sender) -> None:
        self.label = self.first_label = facts.label
        self.history = driver.history
        self.hosts = facts.hosts
        self.cores = facts.cores
        self.total_samples = driver.plan.goal
        self.n_params = driver.plan.model.size
        self.placing_seconds = facts.placing_seconds
        self.place = facts.place
        self.skipped = self.interrupted = False
        plan = driver.plan
        self.optimizer = repr(plan.optimizer)
        self.learning_rate = plan.optimizer.learning_rate
        self.rows_an_update = max(1, plan.batch_size // plan.strategy.parts_of_a_batch(driver.placement.layout.workers))
        self.planned_faults = tuple(describe(fault) for fault in plan.faults)
        self.suspect = facts.advice
        self.score_name = facts.score_name
        self.baseline_score = facts.baseline_score
        self._driver, self._facts, self._began = driver, facts, plan.strategy
        self._sender = sender
        self._closers: list[Callable[[], None]] = []

    def __repr__(self) -> str:
        where = f"{self.workers} worker{'s' * (self.workers != 1)}"
        what = f"{called(self.label, self._began, self.plan.strategy)}: {standing(self)}"
        return printable(f"<Run {what}, {where}, {self.train_seconds:.2f} s>")

    def __reduce__(self) -> tuple[Callable[..., RecordedRun], tuple[object, ...]]:
        """Pickle the record: its workers stay where they are."""
        record = RecordedRun.of(self)
        return RecordedRun, tuple(getattr(record, field.name) for field in fields(record))

    @property
    def name(self) -> str:
        """What it is called in logs, and by `scaleml.attach` if it is detached."""
        return self._driver.name

    @property
    def plan(self) -> Plan:
        """The mathematics in force: what the run was started with, and what has been changed since."""
        return self._sender.plan(applied=True)

    @property
    def workers(self) -> int:
        """How many ranks train."""
        return self._driver.placement.layout.workers

    @property
    def is_serial(self) -> bool:
        """Whether the strategy in force is the baseline."""
        return isinstance(self.plan.strategy, strategies.Serial)

    @property
    def threads(self) -> int:
        """BLAS threads of each rank."""
        return self._driver.placement.threads

    @property
    def settings(self) -> str:
        """Optimizer, batch and epochs in force, in words."""
        plan = self.plan
        long = f"{plan.epochs} epochs of {plan.rows} rows"
        return f"{plan.optimizer!r}, batch {plan.batch_size}, {long}, {plan.dtype}{plan.form}{plan.device}"

    @property
    def advice(self) -> str | None:
        """What may have made the run diverge, in words: columns of X that are far larger than others; None where nothing did.

        It is known of dense X, by the root mean squares of its columns in a sample of the rows.
        """
        error = self._driver.error
        diverged = has_diverged(self) if error is None else NonFinite.is_told_in(error)
        return self._facts.advice or None if diverged else None

    @property
    def topology(self) -> str | None:
        """Who sends what to whom, as fixed at the start: ``"ring"``, say; None until then, and where there is no choice."""
        return self._driver.topology

    @property
    def ledger(self) -> Ledger:
        """Where the time of every rank went, so far."""
        return Ledger(self.history)

    @property
    def train_seconds(self) -> float:
        """The training clock: seconds from the first step, without evaluations and pauses."""
        return self.history.clock(self.workers)

    def peek(self) -> Array | None:
        """Return the parameters that rank 0 kept last, (P,); None unless the run keeps them and still trains."""
        return self._driver.newest_params()

    def named(self, label: str) -> Run:
        """Return this run under another name; all else the two share."""
        other = object.__new__(type(self))
        vars(other).update(vars(self))
        other.label = label
        return other

    # What it shows.

    def summary(self) -> str:
        """Return a few lines: how it stands, samples a second, losses, and the ledger of every rank."""
        return "\n\n".join([run_text(self), *filter(None, [printable(self.error or divergence(self, self.advice))])])

    def plot(self) -> Figure:
        """Return a matplotlib figure: losses against time and samples, and the ledger."""
        from scaleml.telemetry.figures import runs_figure

        return runs_figure([self])

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        said = "" if self.error else escape(divergence(self, self.advice))
        note = f'<p class="note">{said}</p>' if said else ""
        return bundle(self.summary(), headline_fragment(self) + note + run_fragment(self), self.plot)

    # How it works.

    def on_change(self) -> None:
        """Wake whoever waits; called from the driver's thread."""
        if self.over:
            self._close()
        self._sender.on_change()

    def when_over(self, close: Callable[[], None]) -> None:
        """Have ``close`` called at the end, at once if that has come already."""
        self._closers.append(close)
        if self.over:
            self._close()

    def _close(self) -> None:
        with contextlib.suppress(IndexError):  # two threads may come here; each closer is called once
            while True:
                self._closers.pop()()
