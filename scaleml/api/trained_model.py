"""Trained model: parameters with the network and the classes they belong to; needs no cluster."""

from __future__ import annotations

from typing import Any, final

import numpy as np

from scaleml import arrays
from scaleml.arrays import Array
from scaleml.data.collections import is_collection
from scaleml.data.columns import check_width, matrix_of_frame
from scaleml.data.source import array_source
from scaleml.models import Network
from scaleml.models.blocks import Workspace

# Rows, or bytes, to predict at a time: what is made of them stays in the processor's cache. It lies in a workspace, for under a nanny of
# Dask's freed memory goes back to the system at once, and its pages would be mapped anew for every part.
_ROWS, _BYTES = 256, 1 << 19


@final
class TrainedModel:
    """Predicts with the parameters of a run; it can be pickled and needs no workers.

    For a Dask array or dataframe, ``predict``, ``predict_proba`` and ``decision_function`` return a Dask array, lazily: one task
    a block of rows, wherever the block is, with the model sent once.

    Parameters
    ----------
    network : Network
        What was trained.
    params : (P,) array
        Its parameters.
    classes : array or None
        The class labels, sorted; None for regression.

    Examples
    --------
    >>> import numpy as np
    >>> from scaleml.models import LinearModel, Signature
    >>> network = LinearModel().build(Signature(2))
    >>> model = TrainedModel(network, np.array([1, -1, 0], "f4"), np.array(["no", "yes"]))
    >>> model.predict([[2.0, 1.0], [0.0, 3.0]]).tolist()
    ['yes', 'no']
    """

    def __init__(self, network: Network, params: Array, classes: Array | None = None) -> None:
        self.network = network
        self.params = params
        self.classes = classes

    def __repr__(self) -> str:
        what = "regression" if self.classes is None else f"{len(self.classes)} classes"
        return f"<TrainedModel: {self.network.size} parameters, {self.network.signature.n_features} features, {what}>"

    def decision_function(self, X: object) -> Any:
        """Return the scores of the rows of X: (n,), or (n, outputs) for several classes or targets."""
        return self._by_rows("decision_function", X, self.network.scores)

    def predict(self, X: object) -> Any:
        """Return the class labels, or the values, of the rows of X."""
        return self._by_rows("predict", X, self._labels)

    def predict_proba(self, X: object) -> Any:
        """Return the probabilities of the classes, (n, classes), in the order of ``classes``.

        Raises
        ------
        ValueError
            When the loss gives no probabilities.
        """
        return self._by_rows("predict_proba", X, self.network.predict_proba)

    def score(self, X: object, y: object, sample_weight: object = None) -> float:
        """Return the accuracy, or R squared; of Dask collections it is computed where they are, at once."""
        return self._evaluate(X, y, sample_weight)[1]

    def loss(self, X: object, y: object, sample_weight: object = None) -> float:
        """Return the mean loss, without penalty; of Dask collections it is computed where they are, at once."""
        return self._evaluate(X, y, sample_weight)[0]

    def statistics(self, X: object, y: object, sample_weight: object = None) -> Array:
        """Return sums from which ``Network.summarise`` makes loss and score, to be added over parts of the data."""
        inputs = array_source(X, y, sample_weight, classifier=self.classes is not None, classes=self.classes)
        self._check(inputs.x)
        dtype = self.network.dtype.name
        x = inputs.x.astype(self.network.dtype, copy=False)
        return self.network.statistics(self.params, x, inputs.encode(dtype), inputs.encode_weights(dtype))

    def _evaluate(self, X: object, y: object, sample_weight: object) -> tuple[float, float]:
        if is_collection(X):
            from scaleml.api import lazy_prediction as lazy

            self._check(X)
            return self.network.summarise(lazy.statistics(self, X, y, sample_weight))
        if is_collection(y, sample_weight):
            from dask.base import compute

            y, sample_weight = compute(y, sample_weight, traverse=False)
        return self.network.summarise(self.statistics(X, y, sample_weight))

    def _by_rows(self, method: str, X: Any, function: Any) -> Any:
        if is_collection(X):
            from scaleml.api import lazy_prediction as lazy  # Dask is loaded where there is something of it

            return lazy.by_blocks(self, method, X, *self._kind(method))
        x = X.tocsr() if hasattr(X, "tocsr") else matrix_of_frame(X, "X") if hasattr(X, "iloc") else np.asarray(X)
        self._check(x)
        dtype, rows = self.network.dtype, x.shape[0]
        step = max(_ROWS, _BYTES // (x.shape[1] * dtype.itemsize))
        work, found = Workspace(np, dtype), None
        for start in range(0, max(rows, 1), step):
            stop = min(start + step, rows)
            part = function(self.params, _converted(arrays.rows(x, start, stop), work), work)
            if found is None:
                found = np.empty((rows, *part.shape[1:]), part.dtype)
            found[start:stop] = part
        return found

    def _labels(self, w: Any, x: Any, work: Workspace) -> Any:
        found = self.network.predict(w, x, work)
        return found if self.classes is None else self.classes.take(found)

    def _kind(self, method: str) -> tuple[Any, int | None]:
        """Return the dtype of a method's result, and its columns or None."""
        signature = self.network.signature
        several = signature.n_outputs if signature.n_outputs > 1 else None
        if method == "predict" and self.classes is not None:
            return self.classes.dtype, None
        if method == "predict_proba":
            function = self.network.predict_proba  # refuses at once what has no probabilities
            function(self.params, np.zeros((0, signature.n_features), self.network.dtype))
            assert self.classes is not None, "regression has no probabilities"
            return self.network.dtype, len(self.classes)
        return self.network.dtype, several

    def _check(self, x: Any) -> None:
        check_width(x.shape, self.network.signature.n_features)


def _converted(x: Any, work: Workspace) -> Any:
    """Return rows of X in the model's dtype; dense ones that have another lie in the workspace."""
    if x.dtype == work.dtype or arrays.is_sparse(x):
        return x.astype(work.dtype, copy=False)
    converted = work.rows("x", *x.shape)
    converted[...] = x
    return converted
