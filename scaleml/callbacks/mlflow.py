"""MLflow: parameters, metrics, tags and the end of each run, in MLflow's tracking."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Final, final

from scaleml.callbacks.base import Callback, Evaluation, FollowedRun
from scaleml.callbacks.missing import imported
from scaleml.callbacks.scalars import Scalars, name_of
from scaleml.telemetry.history import Change

if TYPE_CHECKING:
    from scaleml.callbacks.base import Rows
    from scaleml.telemetry.comparison import Comparison

_LONGEST: Final = 500
"""Characters of a parameter that every MLflow server takes."""
_STATUS: Final = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
_PARENT: Final = "mlflow.parentRunId"


@final
@dataclass(frozen=True)
class MLflow(Callback):
    """Logs to `MLflow <https://mlflow.org>`_, where ``mlflow.set_tracking_uri`` and ``mlflow.set_experiment`` say.

    Where the calling thread has an active run, that of ``with mlflow.start_run():``, it is used, and not ended. Else one is made, and
    ended as the run ended: ``FINISHED``, ``KILLED`` where it was stopped, ``FAILED``. In ``compare`` every run is one of its own, nested
    in the active one, or in one that is made for the comparison, which also gets its verdict and table: the tag ``scaleml.verdict``,
    ``comparison.txt`` and ``comparison.csv``.

    Parameters
    ----------
    experiment : str, optional
        Its name; made where there is none. Default: MLflow's.
    run_name : str, optional
        Default: the strategy, and in a comparison the round.
    tags : dict, optional
        More tags for every run.

    Raises
    ------
    ImportError
        Where neither mlflow nor mlflow-skinny is installed.

    Examples
    --------
    >>> import scaleml
    >>> from scaleml.callbacks import MLflow
    >>> run = scaleml.train(scaleml.LinearModel(), X, y, callbacks=[MLflow("digits")])  # doctest: +SKIP
    """

    every: ClassVar[float] = 1.0
    patience: ClassVar[float] = 15.0

    experiment: str | None = None
    run_name: str | None = None
    tags: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _mlflow()
        object.__setattr__(self, "_parents", _Parents())

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_parents"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _parents=_Parents())

    def for_run(self, run: FollowedRun) -> Callback:
        """Return what logs this run; MLflow's active run is that of the calling thread."""
        active = _mlflow().active_run()
        parents: _Parents = vars(self)["_parents"]
        if active is not None and run.place is not None:
            parents.use(run.place.comparison, active.info.run_id)
        return _Logged(self, None if active is None else active.info.run_id, parents)

    def on_comparison_end(self, comparison: Comparison) -> None:
        """Add the verdict and the table to the run that the comparison's are nested in: a tag, a text and a file of numbers."""
        parents: _Parents = vars(self)["_parents"]
        parent, is_own = parents.end(comparison.name)
        if parent is None:
            return
        client = _mlflow().MlflowClient()
        try:
            client.set_tag(parent, "scaleml.verdict", comparison.verdict.headline)
            client.log_text(parent, str(comparison), "comparison.txt")
            client.log_text(parent, comparison.table().to_csv(index=False), "comparison.csv")
        finally:
            if is_own:
                client.set_terminated(parent)


@final
class _Parents:
    """Runs that comparisons are nested in, by these: the user's own, or such as are made for them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: dict[str, str] = {}
        self._used: dict[str, str] = {}

    def use(self, comparison: str, active: str) -> None:
        """Remember the user's own run."""
        with self._lock:
            self._used[comparison] = active

    def end(self, comparison: str) -> tuple[str | None, bool]:
        """Forget a comparison: return its run, None if there is none, and whether that was made for it."""
        with self._lock:
            used, made = self._used.pop(comparison, None), self._made.pop(comparison, None)
            return (used, False) if made is None else (made, True)

    def of(self, comparison: str, experiment: str | None) -> str:
        """Return the run of a comparison. It is closed at once, and again with each of its runs: of one that breaks off nobody tells."""
        with self._lock:
            if comparison not in self._made:
                mlflow = _mlflow()
                parent = mlflow.start_run(experiment_id=experiment, run_name=f"comparison {comparison}")
                self._made[comparison] = parent.info.run_id
                mlflow.end_run()
            return self._made[comparison]


@final
class _Logged(Callback):
    def __init__(self, settings: MLflow, active: str | None, parents: _Parents) -> None:
        self._settings, self._active, self._parents = settings, active, parents
        self._own: str | None = None
        self._parent: str | None = None

    def on_start(self, run: FollowedRun) -> None:
        mlflow = _mlflow()
        self._scalars = Scalars(run)
        self._client = mlflow.MlflowClient()
        tags = {"scaleml.strategy": run.label, **self._settings.tags}
        place = run.place
        if place is not None:
            facts = {"comparison": place.comparison, "entry": place.entry, "stage": place.stage, "round": place.round}
            tags |= {f"scaleml.{name}": str(value) for name, value in facts.items()}
        if self._active is not None and place is None:
            self._id = self._active
            for name, value in tags.items():
                self._client.set_tag(self._id, name, value)
        else:
            self._begin(run, tags)
        parameters = {name: str(value)[:_LONGEST] for name, value in run.parameters.items()}
        mlflow.log_params(parameters, run_id=self._id)

    def _begin(self, run: FollowedRun, tags: dict[str, str]) -> None:
        mlflow = _mlflow()
        experiment = None if self._settings.experiment is None else self._experiment(self._settings.experiment)
        if run.place is not None:
            parent = self._active
            if parent is None:
                parent = self._parent = self._parents.of(run.place.comparison, experiment)
            experiment = self._client.get_run(parent).info.experiment_id
            tags[_PARENT] = parent
        name = self._settings.run_name or name_of(run)
        self._id = self._own = mlflow.start_run(experiment_id=experiment, run_name=name, tags=tags).info.run_id

    def on_rows(self, run: FollowedRun, rows: Rows) -> None:
        self._log(self._scalars.of_rows(rows), self._scalars.step)

    def on_evaluation(self, run: FollowedRun, evaluation: Evaluation) -> None:
        self._log(self._scalars.of_evaluation(evaluation), int(evaluation.step))

    def on_change(self, run: FollowedRun, change: Change) -> None:
        self._client.set_tag(self._id, f"scaleml.change at {change.time:.3f} s", change.text)

    def on_end(self, run: FollowedRun) -> None:
        try:
            self._client.set_tag(self._id, "scaleml.state", run.state)
            if run.error is not None:
                self._client.set_tag(self._id, "scaleml.error", run.error)
            self._client.log_text(self._id, run.summary(), "summary.txt")
        finally:
            if self._own is not None:
                _mlflow().end_run(_STATUS[run.state])
            if self._parent is not None:
                self._client.set_terminated(self._parent)

    def _log(self, metrics: dict[str, float], step: int) -> None:
        if metrics:
            _mlflow().log_metrics(metrics, step=step, run_id=self._id)

    def _experiment(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        return str(self._client.create_experiment(name) if found is None else found.experiment_id)


def _mlflow() -> Any:
    return imported("mlflow", "mlflow", "MLflow(...)")
