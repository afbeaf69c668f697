"""Facts of a run: what is known of it beside its plan and its placement."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from scaleml.api.settings import Fitted
from scaleml.api.trained_model import TrainedModel
from scaleml.arrays import Array
from scaleml.models.buffers import Buffers
from scaleml.runtime.errors import NonFinite
from scaleml.telemetry.place import Place


@dataclass(frozen=True)
class RunFacts:
    """What is known of a run beside its plan and its placement.

    Parameters
    ----------
    label : str
        The strategy (and what a ``Trial`` changed), as its repr.
    trained : callable
        Makes of parameters (P,), and buffers where the model has some, what predicts with them.
    hosts, cores : int
        Of the workers.
    placing_seconds : float
        What stands beside a cold start: bringing the data to the workers, placing the ranks.
    own_cluster : bool
        Whether scaleml started the cluster.
    place : Place or None
        Where the run stands in a comparison.
    score_name : str
        What the held-out score is called.
    baseline_score : float, optional
        What always saying the largest class scores, or the mean of numbers.
    fitted : callable, optional
        Makes of parameters and the outcome the fitted estimator, where it was one that was passed.
    advice : str
        Which columns are too large for training by gradients; empty if none.
    """

    label: str
    trained: Callable[[Array, Buffers | None], TrainedModel]
    hosts: int
    cores: int
    placing_seconds: float
    own_cluster: bool
    place: Place | None = None
    score_name: str = "score"
    baseline_score: float | None = None
    fitted: Fitted | None = None
    advice: str = ""

    def explained(self, error: str | None) -> str | None:
        """Return a run's error with the columns that have most likely made it, where it is one of divergence."""
        if error is None or not self.advice or not NonFinite.is_told_in(error):
            return error
        return f"{error}. Look at X first: {self.advice}"
