"""Trainable: what is to be trained and on which data, whether a user passes a model or an estimator of scikit-learn's kind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any, Final, Protocol, Unpack

from distributed import Client

from scaleml.api.settings import Fitted, MoreSettings, Settings, check_kind
from scaleml.cluster.placement import Workers
from scaleml.cluster.staging.training_data import TrainingData
from scaleml.data.collection_source import CollectionSource
from scaleml.data.collections import is_collection
from scaleml.data.map_dataset import refuse_dataset, unwrapped
from scaleml.models import Model
from scaleml.optim import SGD, Optimizer, RowSteps
from scaleml.runtime.stop_rule import StopRule
from scaleml.strategies import AllReduce, Serial, Strategy

_HOMES: Final = {
    "SGDClassifier": "scaleml.linear_model",
    "SGDRegressor": "scaleml.linear_model",
    "MLPClassifier": "scaleml.neural_network",
    "MLPRegressor": "scaleml.neural_network",
}
"""Where the estimators are that ranks train."""


@dataclass(frozen=True)
class Given:
    """What a user has passed to ``train`` or ``compare``.

    Parameters
    ----------
    X, y, sample_weight, validation
        The data.
    strategies : sequence of Strategy or None
        Of all the runs; None stands for the usual one.
    optimizers : sequence of Optimizer or None
        Of all the runs; None stands for the usual one.
    epochs, batch_size, seed : int or None
        None where nothing was said.
    client, workers
        As for ``train``.
    """

    X: Any
    y: Any
    sample_weight: Any = None
    validation: Any = None
    _: KW_ONLY
    strategies: Sequence[Strategy | None] = (None,)
    optimizers: Sequence[Optimizer | None] = (None,)
    epochs: int | None = None
    batch_size: int | None = None
    seed: int | None = None
    client: Client | None = None
    workers: Workers = None


@dataclass(frozen=True)
class Trainable:
    """A model, its data, and the settings that hold where a user says nothing else.

    Parameters
    ----------
    model : Model
    given : Given
        With the data as `TrainingData` takes them: as they were passed, or checked by an estimator.
    strategy, optimizer, epochs, batch_size, seed
        The usual ones.
    stop, steps, by_rows
        See ``Settings``; the steps belong to ``optimizer``.
    fitted : callable, optional
        What makes of a run's end a fitted estimator.
    """

    model: Model
    given: Given
    strategy: Strategy = field(default_factory=AllReduce)
    optimizer: Optimizer = field(default_factory=lambda: SGD(0.1))
    epochs: int = 5
    batch_size: int = 256
    seed: int = 0
    stop: StopRule | None = None
    steps: Callable[[int], RowSteps] | None = None
    by_rows: bool = False
    fitted: Fitted | None = None

    def settings(
        self,
        *,
        strategy: Strategy | None = None,
        optimizer: Optimizer | None = None,
        epochs: int | None = None,
        batch_size: int | None = None,
        **more: Unpack[MoreSettings],
    ) -> Settings:
        """Return the settings of one run; None stands for the usual value.

        Raises
        ------
        ValueError, TypeError
            For a value that breaks its rule.
        """
        return Settings(
            model=self.model,
            strategy=self.strategy if strategy is None else strategy,
            optimizer=self.optimizer if optimizer is None else optimizer,
            epochs=self.epochs if epochs is None else epochs,
            batch_size=self.batch_size if batch_size is None else batch_size,
            seed=self.seed,
            stop=self.stop,
            steps=self.steps if optimizer is None else None,
            by_rows=self.by_rows,
            fitted=self.fitted,
            **more,
        )

    def data(
        self, uses: Sequence[tuple[Strategy, Optimizer]] = ((Serial(), SGD()),), seed: int | None = None
    ) -> TrainingData:
        """Bring the data to the workers, for all runs that have its order and its held-out rows; see `TrainingData`."""
        given = self.given
        data = (given.X, given.y, given.sample_weight, given.validation)
        return TrainingData(self.model, *data, self.seed if seed is None else seed, given.client, given.workers, uses)

    @property
    def is_shuffled_anew(self) -> bool:
        """Whether the data can be brought again in another order: not what lies on the workers already."""
        return not (is_collection(self.given.X) or isinstance(self.given.X, CollectionSource))

    def close(self) -> None:
        """Remove what was brought to workers already, where ``data`` was never called."""
        for given in (self.given.X, self.given.validation):
            if isinstance(given, CollectionSource):
                given.pieces.close()


class EstimatorLike(Protocol):
    """An estimator of scikit-learn's kind that ranks can train."""

    def __scaleml_trainable__(self, whole: object, given: Given) -> Trainable:
        """Return what is to be trained; ``whole`` is the pipeline that it ends, or the estimator itself."""


class PipelineLike(Protocol):
    """scikit-learn's ``Pipeline``, or what is made like it."""

    steps: Any

    def fit(self, X: Any, y: Any = None) -> Any:
        """Fit all steps."""


def trainable(model: object, given: Given) -> Trainable:
    """Take in what a user wants to have trained.

    Parameters
    ----------
    model : Model, or estimator, or Pipeline that ends in one
        Of estimators those of ``scaleml.linear_model`` and ``scaleml.neural_network``. A pipeline's transformers are fitted here, on the
        rows to train on.
    given : Given

    Raises
    ------
    TypeError
        For what is none of them, with what to use instead.
    ValueError
        For settings or data of an estimator that break a rule.
    """
    steps = getattr(model, "steps", None)
    last = steps[-1][1] if isinstance(steps, list) and steps and hasattr(model, "fit") else model
    if not isinstance(last, type) and hasattr(last, "__scaleml_trainable__"):
        taken: EstimatorLike = last
        return taken.__scaleml_trainable__(model, given)
    if hasattr(last, "fit") and hasattr(last, "get_params") and not isinstance(last, Model):
        raise TypeError(_not_ours(last, last is not model))
    check_kind("model", model)
    assert isinstance(model, Model)
    if model.takes_any_shape:
        X, y = unwrapped(given.X, given.y)
        given = replace(given, X=X, y=y)
    else:
        refuse_dataset(given.X, model)
    found = Trainable(model, given)
    return found if given.seed is None else replace(found, seed=given.seed)


def _not_ours(estimator: object, in_pipeline: bool) -> str:
    """Say which import to change."""
    kind = estimator if isinstance(estimator, type) else type(estimator)
    name, where = kind.__name__, "the pipeline ends in" if in_pipeline else "model is"
    if isinstance(estimator, type):
        return f"{where} the class {name}: call it, {name}()"
    if name in _HOMES:
        whose = "scikit-learn's own" if kind.__module__.startswith("sklearn.") else f"{kind.__module__}'s"
        return (
            f"{where} {whose} {name}, which ranks cannot train: change its import to 'from {_HOMES[name]} import {name}', and keep the "
            "rest of the code"
        )
    ours = ", ".join(f"{home}.{each}" for each, home in _HOMES.items())
    return f"{where} a {name}, which ranks cannot train: use LinearModel(), MLP(), or an estimator such as {ours}"
