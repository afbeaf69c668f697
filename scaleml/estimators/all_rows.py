"""Fits on the gradient of all rows: in this process by scikit-learn's own code, or by ranks on a cluster, summed over all of them."""

from __future__ import annotations

import multiprocessing
from numbers import Real
from typing import Any, Final

import numpy as np

from scaleml.api.watchers import Watchers
from scaleml.checks import check_number
from scaleml.data.collections import is_collection
from scaleml.data.columns import refuse_no_weight
from scaleml.estimators.base import Trained
from scaleml.estimators.coefficients import CoefficientLayout
from scaleml.estimators.job import has_client
from scaleml.models import Model
from scaleml.optim import Optimizer
from scaleml.runtime.outcome import Outcome
from scaleml.runtime.stop_rule import StopRule
from scaleml.runtime.train_state import TrainState
from scaleml.strategies import AllReduce

HERE: Final = 50_000_000
"""Products of a weight and a value in one pass over the data, up to which it is trained in this process: about 0.1 s of one core,
by which a few dozen passes take less than starting ranks and bringing them the data; ``benchmarks/logistic.py`` times both sides.
"""


class AllRows(Trained):
    """What ``LogisticRegression`` and ``Ridge`` share: settings where to train, and none of steps on batches."""

    def __scaleml_trainable__(self, whole: Any, given: Any) -> Any:
        """Refuse: ``train`` and ``compare`` are about steps on batches, which this estimator does not take."""
        name = type(self).__name__
        model = (
            "LinearModel(alpha=1 / (C * len(X)))" if name == "LogisticRegression" else "LinearModel('squared_error')"
        )
        raise TypeError(
            f"{name} trains by its own fit(X, y), with strategy=AllReduce() on ranks: to watch or compare the same optimizer, pass "
            f"{model} with optimizer=LBFGS() and epochs=200"
        )


def is_left_to_scikit_learn(estimator: Any, X: Any, outputs: int) -> bool:
    """Whether ``strategy="auto"`` leaves these rows to scikit-learn: those in this process that are few, or may start no cluster.

    Parameters
    ----------
    X : array-like or CSR matrix of shape (n_samples, n_features), or Dask collection
        Not yet checked: what is no such thing is little, and scikit-learn says what is wrong with it.
    outputs : int
        Scores of a row.
    """
    if estimator.strategy != "auto" or is_collection(X):
        return False
    shape = getattr(X, "shape", None) or np.shape(np.asarray(X, object))
    if len(shape) != 2:
        return True
    if getattr(X, "nnz", shape[0] * shape[1]) * outputs <= HERE:
        return True
    return estimator.client is None and multiprocessing.parent_process() is not None and not has_client()


def refuse_solver(estimator: Any, X: Any, what: str, remedy: str) -> None:
    """Raise ValueError for a setting that only scikit-learn's own code has, on data or under a strategy that is for ranks."""
    where = "a Dask collection" if is_collection(X) else f"strategy={estimator.strategy!r}"
    inside = "pass X.compute() and y.compute() with strategy='auto'" if is_collection(X) else "use strategy='auto'"
    raise ValueError(
        f"{what} with {where}: that is scikit-learn's own code, which needs the rows in this process, not on workers: {remedy}, or "
        f"{inside}"
    )


def one_weight(sample_weight: Any) -> tuple[Any, float]:
    """Return the weights of the rows, None where they are one number for all, and what all weights are multiplied by.

    Raises
    ------
    ValueError
        For a number that is not above 0.
    """
    if not isinstance(sample_weight, Real):
        return sample_weight, 1.0
    return None, check_number("sample_weight", sample_weight, 0, open_low=True)


def counted(total: float) -> float:
    """Return the sum of all weights; raise ValueError if no row counts."""
    refuse_no_weight(total != 0)
    return total


def laid_out(inputs: Any, intercept: bool, begin: Any) -> tuple[CoefficientLayout, Any]:
    """Return where coefficients lie, and the inputs without the empty columns of hashed text, whose coefficients stay 0.

    Not where `begin` has some already, which the penalty is to take away.
    """
    used = inputs.filled if begin is None and inputs.is_sparse else None
    layout = CoefficientLayout(inputs.features, inputs.n_outputs, intercept, used)
    return layout, inputs if used is None else inputs.only(used)


def learn(
    estimator: Any,
    model: Model,
    inputs: Any,
    optimizer: Optimizer,
    epochs: int,
    watchers: Watchers,
    begin: TrainState | None = None,
    seed: int = 0,
) -> Outcome:
    """Have ranks train a model with an optimizer that takes all rows; an epoch is one evaluation.

    Raises
    ------
    RunFailed
        When the run fails.
    """
    from scaleml.api.on_cluster import train_there

    return train_there(
        model,
        inputs,
        None,
        strategy=AllReduce() if estimator.strategy == "auto" else estimator.strategy,
        workers=estimator.workers,
        client=estimator.client,
        watchers=watchers,
        optimizer=optimizer,
        epochs=epochs,
        seed=seed,
        stop=StopRule(tol=None),
        begin=begin,
    )
