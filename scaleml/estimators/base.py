"""Estimator base: what all four are beside scikit-learn's own. Settings of their own, a client, data that is checked once."""

from __future__ import annotations

from dataclasses import replace
from numbers import Integral
from typing import Any, Final

import numpy as np
from sklearn.utils import check_random_state, column_or_1d
from sklearn.utils._param_validation import Interval, StrOptions

from scaleml.data.collections import is_collection
from scaleml.data.source import ArraySource
from scaleml.estimators import lazy
from scaleml.estimators.callbacks import CallbackSupport, as_scikit_learns
from scaleml.estimators.dask_score import score
from scaleml.optim import Optimizer
from scaleml.strategies import Strategy

KINDS: Final = [np.float64, np.float32]
"""What X is trained in: float32 stays, all else becomes float64, as in scikit-learn."""
EXTRAS: dict[str, Any] = {
    "strategy": [StrOptions({"auto"}), Strategy],
    "workers": [None, Interval(Integral, 1, None, closed="left"), list, tuple],
    "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
    "optimizer": [None, Optimizer],
}


class Trained(CallbackSupport):
    """Trained by scaleml's ranks. ``client`` is a property: it can be neither cloned nor pickled."""

    _client: Any = None

    @property
    def client(self) -> Any:
        """The Dask client to train with; None for the current one, else an embedded cluster. Not cloned, not pickled."""
        return self._client

    @client.setter
    def client(self, client: Any) -> None:
        if client is not None:
            from scaleml.cluster.current_client import check_client

            check_client(client)
        self._client = client

    def set_callbacks(self, *callbacks: Any) -> Any:
        """Set who is told of each fit: `scaleml.callbacks.Callback` objects, scikit-learn's callbacks, or some of both; nothing for nobody.

        Of scikit-learn's own code, as for little data, a `scaleml.callbacks.Callback` is told of the start and the end alone.

        Returns
        -------
        self
        """
        return super().set_callbacks(*as_scikit_learns(callbacks))

    def predict(self, X: Any) -> Any:
        """Predict the rows of X.

        Parameters
        ----------
        X : array-like or CSR matrix of shape (n_samples, n_features), Dask array or dataframe

        Returns
        -------
        array of shape (n_samples,) or (n_samples, n_outputs)
            Of a Dask collection a Dask array, lazily: one task a block, wherever the block is.
        """
        return lazy.by_blocks(self, "predict", X) if is_collection(X) else super().predict(X)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the accuracy, or R squared, of the predictions for X.

        Parameters
        ----------
        X : array-like or CSR matrix of shape (n_samples, n_features), Dask array or dataframe
            Of a Dask collection the score is computed at once, in parallel, where the blocks are.
        y : array-like or Dask collection of shape (n_samples,) or (n_samples, n_outputs)
        sample_weight : array-like or Dask collection of shape (n_samples,), optional

        Returns
        -------
        float
        """
        if is_collection(X):
            return score(self, X, y, sample_weight)
        return float(super().score(X, *lazy.local(self, y, sample_weight)))

    def __scaleml_trainable__(self, whole: Any, given: Any) -> Any:
        """Return what ``scaleml.train`` trains where it is given this estimator, or a pipeline ``whole`` that it ends."""
        from scaleml.estimators.as_model import as_trainable

        return as_trainable(self, whole, given)

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        state.pop("_client", None)
        return state

    def _seed(self) -> int:
        """Draw the run's seed from ``random_state``."""
        return int(check_random_state(self.random_state).randint(2**31 - 1))


def inputs_of(x: Any, y: Any, weights: Any, classes: int | None, names: Any = None) -> ArraySource:
    """Return checked data as sources; ``names`` are those of the columns, if there are any."""
    return ArraySource(
        x, y, weights, None if classes is None else np.arange(classes), None if names is None else tuple(names)
    )


def rows_of(inputs: ArraySource, rows: Any) -> ArraySource:
    """Return some of the rows."""
    weights = None if inputs.weights is None else inputs.weights[rows]
    return replace(inputs, x=inputs.x[rows], y=inputs.y[rows], weights=weights)


def column_of(y: Any) -> Any:
    """Return a single column as one dimension."""
    return column_or_1d(y, warn=True) if y.ndim == 2 and y.shape[1] == 1 else y
