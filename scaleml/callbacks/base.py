"""Callback: what is told of a run while it goes on, in the client's process and in a thread of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Protocol

from scaleml.telemetry.history import Change
from scaleml.telemetry.run_like import RunLike

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from scaleml.arrays import Array
    from scaleml.telemetry.comparison import Comparison

    Rows = Mapping[str, NDArray[np.float64]]


class Evaluation(NamedTuple):
    """One evaluation on held-out data, as a row of ``history.evaluations``.

    Attributes
    ----------
    time : float
        When, on the training clock (s).
    samples : float
        Rows that all ranks together had consumed.
    step : float
        Steps of the first rank.
    loss, score : float
        Of the held-out rows; ``run.score_name`` says what the score is.
    """

    time: float
    samples: float
    step: float
    loss: float
    score: float


class FollowedRun(RunLike, Protocol):
    """A run as callbacks see it: the `Run` that ``train`` returns, or the record of a fit in this process.

    Attributes
    ----------
    parameters : mapping
        What it was started with, by name: strategy, optimizer, batch size, epochs, seed, workers, ...
    over : bool
        Whether it has ended, one way or another.
    params : array or None
        The parameters, (P,), once it is over; None where it left none, and of scikit-learn's own code.
    """

    @property
    def parameters(self) -> Mapping[str, object]: ...
    @property
    def over(self) -> bool: ...
    @property
    def params(self) -> Array | None: ...
    def stop(self) -> None:
        """End it at a step boundary; of a fit in this process at the end of the epoch."""

    def summary(self) -> str:
        """Return how it stands, or how it ended, in a few lines."""


class Callback:
    """Told of a run while it goes on: derive from it, and write the hooks that you need.

    Hooks run in the client's process, never on ranks: one thread a callback, so that a callback's hooks are never called at the same
    time, and a slow one holds up neither the run nor other callbacks. It is then told less often, of more rows at once. What a hook
    raises is logged and warned of once; the callback is told no more of that run or comparison but its end. For one that does
    not return, the end of the run waits `patience` seconds, and no longer.

    First comes `on_start`, last and exactly once `on_end`, also of runs that fail, are stopped or interrupted. Between them each kind
    of news comes in order; what arrives together, in the order of the training clock.

    Attributes
    ----------
    every : float
        Seconds between two looks at the run.
    patience : float
        Seconds that the end of a run waits for it.
    shows_progress : bool
        Whether it shows how far a run is: then ``train`` and ``compare`` do not unless they are asked to.

    Notes
    -----
    In ``compare`` a callback is told of each run in turn: ``run.label`` says which contender it is, ``run.place`` the comparison, the
    contender's number, the round, and whether it is one that counts; it is None elsewhere. Of all of them together `on_comparison_end`
    tells. A hook may call ``run.stop()``, and of a
    `Run` also its ``update``, ``pause`` and ``inject``.

    Examples
    --------
    >>> class EarlyEnd(Callback):
    ...     def on_evaluation(self, run, evaluation):
    ...         if evaluation.loss < 0.3:
    ...             run.stop()
    """

    every: ClassVar[float] = 0.1
    patience: ClassVar[float] = 5.0
    shows_progress: ClassVar[bool] = False

    def for_run(self, run: FollowedRun) -> Callback:
        """Return whose hooks are called for this run: this object itself, unless it keeps something of each run apart.

        Called in the thread that starts the run, before `on_start`; it must not wait.
        """
        return self

    def on_start(self, run: FollowedRun) -> None:
        """The run is there; its ranks may just be starting."""

    def on_rows(self, run: FollowedRun, rows: Rows) -> None:
        """Ranks have told of more steps.

        Parameters
        ----------
        rows : dict of (n,) float arrays
            The new rows of ``run.history``, by the names of its columns: see `scaleml.telemetry.History`.
        """

    def on_evaluation(self, run: FollowedRun, evaluation: Evaluation) -> None:
        """The held-out rows were evaluated."""

    def on_change(self, run: FollowedRun, change: Change) -> None:
        """Something changed in mid-run.

        Parameters
        ----------
        change : Change
            Its time, words and kind: ``"setting"``, ``"strategy"``, ``"fault"``, as in ``run.history.changes``; or ``"state"``: the run
            is paused, runs again, or recovers, if that lasts to the next look.
        """

    def on_end(self, run: FollowedRun) -> None:
        """The run is over: ``run.state`` says how, ``run.error`` why it failed, ``run.summary()`` what it came to."""

    def on_comparison_end(self, comparison: Comparison) -> None:
        """All runs of ``compare`` are over: ``comparison.verdict`` says which strategy to use, ``comparison.table()`` has the numbers.

        Called after the last run's `on_end`, of this object itself, not of what `for_run` has returned; also where the comparison was
        stopped, with the runs so far. Not of a callback that has raised, or has not returned, before.

        Parameters
        ----------
        comparison : Comparison
            As ``compare`` returns it; ``comparison.name`` is what its runs' places call it.
        """
