"""A trained model: parameters with the network and the classes they belong to; needs no cluster."""

from __future__ import annotations

from typing import Any, final

import numpy as np

from scaleml import arrays
from scaleml.data.inputs import check_inputs
from scaleml.models import Network

_CHUNK = 65536


@final
class TrainedModel:
    """Predicts with the parameters of a run; it can be pickled and needs no workers.

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

    def __init__(self, network: Network, params: Any, classes: Any = None) -> None:
        self.network = network
        self.params = params
        self.classes = classes

    def __repr__(self) -> str:
        what = "regression" if self.classes is None else f"{len(self.classes)} classes"
        return f"<TrainedModel: {self.network.size} parameters, {self.network.signature.n_features} features, {what}>"

    def decision_function(self, X: Any) -> Any:
        """Return the scores of the rows of X: (n,), or (n, outputs) for several classes or targets."""
        return self._by_rows(X, self.network.scores)

    def predict(self, X: Any) -> Any:
        """Return the class labels, or the values, of the rows of X."""
        found = self._by_rows(X, self.network.predict)
        return found if self.classes is None else self.classes[found]

    def predict_proba(self, X: Any) -> Any:
        """Return the probabilities of the classes, (n, classes), in the order of ``classes``.

        Raises
        ------
        ValueError
            When the loss gives no probabilities.
        """
        return self._by_rows(X, self.network.predict_proba)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the accuracy, or R squared."""
        return self._evaluate(X, y, sample_weight)[1]

    def loss(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the mean loss, without penalty."""
        return self._evaluate(X, y, sample_weight)[0]

    def _evaluate(self, X: Any, y: Any, sample_weight: Any) -> tuple[float, float]:
        inputs = check_inputs(X, y, sample_weight, classifier=self.classes is not None, classes=self.classes)
        x = self._fitting(inputs.x)
        dtype = self.network.dtype.name
        y, weights = inputs.encode(dtype), inputs.encode_weights(dtype)
        return self.network.summarise(self.network.statistics(self.params, x, y, weights))

    def _by_rows(self, X: Any, function: Any) -> Any:
        x = self._fitting(X if hasattr(X, "tocsr") else np.asarray(X))
        parts = [
            function(self.params, arrays.rows(x, start, min(start + _CHUNK, x.shape[0])))
            for start in range(0, x.shape[0], _CHUNK)
        ]
        return np.concatenate(parts) if parts else function(self.params, x)

    def _fitting(self, x: Any) -> Any:
        x = x.tocsr() if hasattr(x, "tocsr") else x
        expected = self.network.signature.n_features
        if x.ndim != 2 or x.shape[1] != expected:
            raise ValueError(
                f"X has shape {tuple(x.shape)}, but this model was trained on {expected} features: pass (rows, {expected})"
            )
        return x.astype(self.network.dtype, copy=False)
