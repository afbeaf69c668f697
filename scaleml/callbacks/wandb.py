"""Weights & Biases, and what has its interface, such as trackio: settings, metrics and the end of each run."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import Context
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, final

from scaleml.callbacks.base import Callback, Evaluation, FollowedRun
from scaleml.callbacks.missing import imported
from scaleml.callbacks.scalars import Scalars, name_of
from scaleml.telemetry.history import Change

if TYPE_CHECKING:
    from scaleml.callbacks.base import Rows
    from scaleml.telemetry.comparison import Comparison


@final
@dataclass(frozen=True)
class Wandb(Callback):
    """Logs to `Weights & Biases <https://docs.wandb.ai>`_, or to what has its interface: ``module="trackio"``.

    Where there is an active run, that of ``wandb.init()``, it is used, and not finished. Else one is made and finished. In ``compare``
    every run is one of its own, and the comparison is their group; the last of it has the verdict and the table.

    Parameters
    ----------
    project : str
        Whose runs they are.
    name : str, optional
        Default: the strategy, and in a comparison the round.
    module : str
        Any module with ``init``, whose runs have ``log`` and ``finish``.
    settings : dict
        What else ``init`` takes: ``{"mode": "offline", "dir": "logs"}``.

    Raises
    ------
    ImportError
        Where the module is not installed.

    Examples
    --------
    >>> import scaleml
    >>> from scaleml.callbacks import Wandb
    >>> run = scaleml.train(scaleml.LinearModel(), X, y, callbacks=[Wandb("digits")])  # doctest: +SKIP
    >>> run = scaleml.train(scaleml.LinearModel(), X, y, callbacks=[Wandb(module="trackio")])  # doctest: +SKIP
    """

    every: ClassVar[float] = 1.0
    patience: ClassVar[float] = 30.0

    project: str = "scaleml"
    name: str | None = None
    module: str = "wandb"
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._library()

    def for_run(self, run: FollowedRun) -> Callback:
        """Return what logs this run."""
        library = self._library()
        return _Logged(self, library, None if run.place is not None else _active(library))

    def on_comparison_end(self, comparison: Comparison) -> None:
        """Add a run to the comparison's group that has the verdict, the table, and all of it as text."""
        library, name = self._library(), f"comparison {comparison.name}"
        run = self.begun(library, self.name or name, {"comparison": comparison.name}, name)
        facts: dict[str, Any] = {"verdict": str(comparison.verdict), "report": str(comparison)}
        if hasattr(library, "Table"):
            facts["table"] = library.Table(dataframe=comparison.table())
        try:
            run.log(facts)
        finally:
            run.finish()

    def begun(self, library: Any, name: str, config: Mapping[str, object], group: str | None) -> Any:
        """Return a new run of the library's."""
        settings: dict[str, Any] = {"project": self.project, "name": name, "config": dict(config)}
        if group is not None:
            settings["group"] = group
        if self.module == "wandb":
            settings["reinit"] = "create_new"  # beside whatever else this process logs
        # In a context of its own: trackio would end the run that is active in this one.
        return Context().run(library.init, **{**settings, **self.settings})

    def _library(self) -> Any:
        return imported(self.module, self.module, f"Wandb(module={self.module!r})")


@final
class _Logged(Callback):
    def __init__(self, settings: Wandb, library: Any, active: Any) -> None:
        self._settings, self._library, self._run, self._is_own = settings, library, active, active is None

    def on_start(self, run: FollowedRun) -> None:
        self._scalars = Scalars(run)
        config = dict(run.parameters)
        place = run.place
        if place is not None:
            config |= {"entry": place.entry, "stage": place.stage, "round": place.round}
        if not self._is_own:
            self._run.config.update(config)
        else:
            group = None if place is None else f"comparison {place.comparison}"
            self._run = self._settings.begun(self._library, self._settings.name or name_of(run), config, group)
        if self._has_axes:
            for group in ("train", "time", "held_out"):
                self._run.define_metric(f"{group}/*", step_metric="step")

    @property
    def _has_axes(self) -> bool:
        """Whether a run's own steps, which only grow, need not be ours; trackio takes ours."""
        return hasattr(self._run, "define_metric")

    def on_rows(self, run: FollowedRun, rows: Rows) -> None:
        self._log(self._scalars.of_rows(rows), self._scalars.step)

    def on_evaluation(self, run: FollowedRun, evaluation: Evaluation) -> None:
        self._log(self._scalars.of_evaluation(evaluation), int(evaluation.step))

    def on_change(self, run: FollowedRun, change: Change) -> None:
        self._log({"change": change.text}, max(change.step, self._scalars.step))

    def on_end(self, run: FollowedRun) -> None:
        try:
            self._log({"state": run.state, "error": run.error or ""}, self._scalars.step)
        finally:
            if self._is_own:
                self._finish(failed=run.state == "failed")

    def _finish(self, failed: bool) -> None:
        if self._settings.module == "wandb":
            self._run.finish(exit_code=int(failed))
        else:
            self._run.finish()

    def _log(self, metrics: Mapping[str, float | str], step: int) -> None:
        if metrics and self._has_axes:
            self._run.log({**metrics, "step": step})
        elif metrics:
            self._run.log(dict(metrics), step=step)


def _active(library: Any) -> Any:
    """Return the run that the calling thread has made with ``init`` and not finished, or None."""
    run = getattr(library, "run", None)
    if not hasattr(run, "finish"):  # trackio keeps it in a context variable, and has a module of that name
        current = getattr(getattr(library, "context_vars", None), "current_run", None)
        run = None if current is None else current.get()
    return run
