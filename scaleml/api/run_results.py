"""What a run leaves: parameters, the models that they make, and of a run that was given an estimator that, fitted."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from scaleml.api.run_facts import RunFacts
from scaleml.api.trained_model import TrainedModel
from scaleml.arrays import Array
from scaleml.cluster.run_driver import RunDriver
from scaleml.runtime.outcome import Outcome


class RunResults:
    """The part of a `Run` that is there when it is over."""

    _driver: RunDriver
    _facts: RunFacts

    @property
    def params(self) -> Array | None:
        """The parameters, (P,), once the run is over; of a failed run those of its last good step, if a rank still had them."""
        result = self._driver.result
        return None if result is None else result.params

    @property
    def outcome(self) -> Outcome | None:
        """How the rank ended whose parameters these are: its epochs and their losses; None while the run lives."""
        result = self._driver.result
        return None if result is None else result.outcome

    @property
    def last_model(self) -> TrainedModel:
        """The model as training left it, with ``params``, once the run is over.

        Raises
        ------
        RuntimeError
            While the run lives, or when it left no parameters.
        """
        if self.params is None or self._driver.result is None:
            why = "; wait() for its end" if self._driver.error is None else f": {self._driver.error}"
            raise RuntimeError(f"the run is {self._driver.state} and has no parameters{why}")
        return self._facts.trained(self.params, self._driver.result.buffers)

    @property
    def best_evaluation(self) -> int | None:
        """Which of ``history.evaluations`` had the lowest held-out loss, 0 being the one before the first step; None without one."""
        result = self._driver.result
        return None if result is None or result.best is None else result.evaluation

    @property
    def model(self) -> TrainedModel:
        """The model at the best held-out loss, that of `best_evaluation`; where nothing was held out, it is `last_model`.

        Raises
        ------
        RuntimeError
            While the run lives, or when it left no parameters.
        """
        result = self._driver.result
        if result is None or result.best is None:
            return self.last_model
        return self._facts.trained(result.best, result.best_buffers)

    @property
    def estimator(self) -> Any:
        """The fitted estimator, or pipeline, of a run that was given one: with the parameters of `model`.

        Raises
        ------
        RuntimeError
            As `model`; and where the run was given a model.
        """
        return self._as_estimator(self.model)

    @property
    def last_estimator(self) -> Any:
        """The same as `estimator`, with the parameters of `last_model`."""
        return self._as_estimator(self.last_model)

    @property
    def fitted(self) -> Callable[[Array], Any] | None:
        """What makes a fitted estimator of parameters (P,); None while the run lives, and where it was given a model."""
        if self._facts.fitted is None or self.outcome is None:
            return None
        return partial(self._facts.fitted, outcome=self.outcome)

    def _as_estimator(self, model: TrainedModel) -> Any:
        if self.fitted is None:
            raise RuntimeError("the run was given a model, no estimator: use run.model, or pass an estimator to train")
        return self.fitted(model.params)
