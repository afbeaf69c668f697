"""Recorded run: what is left of a run in a file. Everything to be shown or used of it, and nothing of the cluster it ran on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, final

from scaleml.arrays import Array
from scaleml.escaping import printable
from scaleml.telemetry.bundle import bundle
from scaleml.telemetry.history import History
from scaleml.telemetry.ledger import Ledger
from scaleml.telemetry.place import Place

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@final
@dataclass(frozen=True, repr=False)
class RecordedRun:
    """A run as it was when it was pickled or saved: the same numbers and the same model, without its workers.

    Attributes have the names and the meaning of those of ``Run``; ``state`` is what it was then.
    """

    label: str
    first_label: str
    is_serial: bool
    workers: int
    threads: int
    hosts: int
    cores: int
    n_params: int
    settings: str
    optimizer: str
    learning_rate: float
    rows_an_update: int
    planned_faults: tuple[Mapping[str, object], ...]
    place: Place | None
    total_samples: int | None
    state: str
    error: str | None
    suspect: str
    history: History
    train_seconds: float | None
    placing_seconds: float | None
    score_name: str
    baseline_score: float | None
    params: Array | None
    best_evaluation: int | None
    fitted: Callable[[Array], Any] | None
    """What makes a fitted estimator of parameters; None where the run was given a model."""
    model: Any
    """What predicts with the parameters of ``best_evaluation``; None where the run left none."""
    last_model: Any
    """What predicts with ``params``."""

    @classmethod
    def of(cls, run: Any) -> RecordedRun:
        """Return the record of any run that has these attributes."""
        values = {field.name: getattr(run, field.name) for field in fields(cls) if not field.name.endswith("model")}
        models = (None, None) if run.params is None else (run.model, run.last_model)
        return cls(**values, model=models[0], last_model=models[1])

    def named(self, label: str) -> RecordedRun:
        """Return this run under another name."""
        return replace(self, label=label)

    @property
    def over(self) -> bool:
        """Nothing more happens to a record."""
        return True

    @property
    def estimator(self) -> Any:
        """The fitted estimator with the parameters of ``model``; None where there is none."""
        return None if self.fitted is None or self.model is None else self.fitted(self.model.params)

    @property
    def last_estimator(self) -> Any:
        """The fitted estimator with the parameters of ``last_model``; None where there is none."""
        return None if self.fitted is None or self.last_model is None else self.fitted(self.last_model.params)

    @property
    def ledger(self) -> Ledger:
        """Where the time of every rank went."""
        return Ledger(self.history)

    def summary(self) -> str:
        """Return a few lines: how it ended, samples a second, losses, and the ledger of every rank."""
        from scaleml.telemetry.report import run_text

        return run_text(self)

    def plot(self) -> Figure:
        """Return a matplotlib figure: losses against time and samples, and the ledger."""
        from scaleml.telemetry.figures import runs_figure

        return runs_figure([self])

    def __repr__(self) -> str:
        workers = f"{self.workers} worker{'s' * (self.workers != 1)}"
        return printable(f"<RecordedRun {self.label}: {self.state}, {workers}, {self.train_seconds or 0:.2f} s>")

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        from scaleml.telemetry.report import run_fragment

        return bundle(self.summary(), run_fragment(self), self.plot)
