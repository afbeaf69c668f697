"""A trained model: parameters with the flat model and the classes they belong to; needs no cluster."""

from __future__ import annotations

import copy
import pickle
from typing import Any, final

import cloudpickle
import numpy as np

from scaleml import arrays
from scaleml.api import tensor_prediction as tensors
from scaleml.api.tensor_prediction import Predict
from scaleml.arrays import Array, Matrix
from scaleml.data.collections import is_collection
from scaleml.data.columns import matrix_of_frame, refuse_no_weight, refuse_other_names
from scaleml.data.row_dtype import in_words
from scaleml.data.source import array_source
from scaleml.models import FlatModel, Signature
from scaleml.models.buffers import Buffers
from scaleml.models.flat_model import OfModule, Probabilistic, Reusing, Scoring, with_buffers

# Rows, or bytes, to predict at a time: what is made of them stays in the processor's cache. It lies in scratch of the model, for under a
# nanny of Dask's freed memory goes back to the system at once, and its pages would be mapped anew for every part.
_ROWS, _BYTES = 256, 1 << 19


@final
class TrainedModel:
    """Predicts with the parameters of a run; it can be pickled and needs no workers.

    A pickle (also joblib's, or a deep copy) has with it what nobody could import where it is loaded, such as a module's class
    that was written in a notebook, or a lambda; modules of files are imported there.

    For a Dask array or dataframe, ``predict``, ``predict_proba`` and ``decision_function`` return a Dask array, lazily: one task
    a block of rows, wherever the block is, with the model sent once.

    Parameters
    ----------
    network : FlatModel
        What was trained.
    signature : Signature
        Of the data that it was trained on.
    params : (P,) array
        Its parameters.
    classes : array or None
        The class labels, sorted; None for regression.
    feature_names : tuple, optional
        Of the columns, where it was trained on a dataframe. Dataframes with other columns, or in another order, are refused; what has no
        names is taken by place.

    Examples
    --------
    >>> import numpy as np
    >>> from scaleml.models import LinearModel, Signature
    >>> signature = Signature(2)
    >>> network = LinearModel().build(signature)
    >>> model = TrainedModel(network, signature, np.array([1, -1, 0], "f4"), np.array(["no", "yes"]))
    >>> model.predict([[2.0, 1.0], [0.0, 3.0]]).tolist()
    ['yes', 'no']
    """

    def __init__(
        self,
        network: FlatModel,
        signature: Signature,
        params: Array,
        classes: Array | None = None,
        feature_names: tuple[object, ...] | None = None,
    ) -> None:
        self.network = network
        self.signature = signature
        self.params = params
        self.classes = classes
        self.feature_names = feature_names

    @classmethod
    def of_run(
        cls,
        network: FlatModel,
        signature: Signature,
        classes: Array | None,
        params: Array,
        buffers: Buffers | None,
        feature_names: tuple[object, ...] | None = None,
    ) -> TrainedModel:
        """Return the model of parameters (P,) and, where it has some, buffers that a run has left.

        Raises
        ------
        RuntimeError
            The buffers are lost.
        """
        try:
            return cls(with_buffers(network, buffers), signature, params, classes, feature_names)
        except ValueError as error:
            raise RuntimeError(f"{error}: the run's .params are what is left of it") from error

    def __reduce__(self) -> tuple[Any, ...]:
        """Return how it is made again, also where nothing of ``__main__``, of a notebook or of a function can be imported."""
        network = cloudpickle.dumps(self.network)
        return _loaded, (network, self.signature, self.params, self.classes, self.feature_names)

    def __repr__(self) -> str:
        what = "regression" if self.classes is None else f"{len(self.classes)} classes"
        row = self.signature.row
        of = f"{self.signature.n_features} features" if row is None else f"rows of {in_words(row)}"
        return f"<TrainedModel: {self.network.size} parameters, {of}, {what}>"

    @property
    def module(self) -> Any:
        """The framework's own module with the trained parameters, such as a ``torch.nn.Module`` in evaluation mode: a new copy each time.

        Raises
        ------
        AttributeError
            The model was made of none.
        """
        if not isinstance(self.network, OfModule):
            raise AttributeError(f"{type(self.network).__name__} was made of no module: its parameters are in .params")
        return self.network.module(self.params)

    def decision_function(self, X: Any) -> Any:
        """Return the scores of the rows of X: (n,), or (n, outputs) for several classes or targets.

        Raises
        ------
        TypeError
            When the model has no scores.
        """
        return self._by_rows("decision_function", X)

    def predict(self, X: object) -> Any:
        """Return the class labels, or the values, of the rows of X."""
        return self._by_rows("predict", X)

    def predict_proba(self, X: object) -> Any:
        """Return the probabilities of the classes, (n, classes), in the order of ``classes``.

        Raises
        ------
        ValueError
            When the loss gives no probabilities.
        TypeError
            When the model has none.
        """
        return self._by_rows("predict_proba", X)

    def score(self, X: object, y: object, sample_weight: object = None) -> float:
        """Return the accuracy, or R squared; of Dask collections it is computed where they are, at once."""
        return self._evaluate(X, y, sample_weight)[1]

    def loss(self, X: object, y: object, sample_weight: object = None) -> float:
        """Return the mean loss, without penalty; of Dask collections it is computed where they are, at once."""
        return self._evaluate(X, y, sample_weight)[0]

    def statistics(self, X: Any, y: Any, sample_weight: Any = None) -> Array:
        """Return sums from which ``FlatModel.summarise`` makes loss and score, to be added over parts of the data."""
        classes = self.classes
        refuse_other_names(X, self.feature_names)
        if self.signature.row is not None:
            return tensors.statistics(self, X, y, sample_weight)
        inputs = array_source(X, y, sample_weight, classifier=classes is not None, classes=classes, whole=False)
        self.check_width(inputs.x.shape)
        dtype = self.network.dtype.name
        x = inputs.x.astype(self.network.dtype, copy=False)
        return self.network.statistics(self.params, x, inputs.encode(dtype), inputs.encode_weights(dtype))

    def no_statistics(self) -> Array:
        """Return the statistics of no rows."""
        signature = self.signature
        return self.network.statistics(self.params, signature.no_rows(), signature.no_targets())

    def snapshot(self) -> TrainedModel:
        """Return this model as it is now, with parameters of its own."""
        classes = None if self.classes is None else self.classes.copy()
        return TrainedModel(copy.copy(self.network), self.signature, self.params.copy(), classes, self.feature_names)

    def check_width(self, shape: tuple[float, ...]) -> None:
        """Raise ValueError unless X, of this shape, has the columns the model was trained on; NaN is an unknown number."""
        expected = self.signature.n_features
        if len(shape) != 2 or not (shape[1] == expected or shape[1] != shape[1]):
            raise ValueError(
                f"X has shape {tuple(shape)}, but this model was trained on {expected} features: pass (rows, {expected})"
            )

    def _evaluate(self, X: Any, y: Any, sample_weight: Any) -> tuple[float, float]:
        if is_collection(X):
            from scaleml.api import lazy_prediction as lazy

            refuse_other_names(X, self.feature_names)
            if self.signature.row is None:
                lazy.check_table(X)
                self.check_width(X.shape)
            totals = lazy.statistics(self, X, y, sample_weight)
        else:
            if is_collection(y, sample_weight):
                from dask.base import compute

                y, sample_weight = compute(y, sample_weight, traverse=isinstance(y, dict | tuple))
            totals = self.statistics(X, y, sample_weight)
        refuse_no_weight(sample_weight is None or bool(np.any(totals)))
        return self.network.summarise(totals)

    def _by_rows(self, method: str, X: Any) -> Any:
        predict = self._function(method)
        refuse_other_names(X, self.feature_names)
        if is_collection(X):
            from scaleml.api import lazy_prediction as lazy  # Dask is loaded where there is something of it

            # What has no probabilities refuses at once.
            none = predict(self.network, self.signature.no_rows())
            return lazy.by_blocks(self, method, X, none)
        if self.signature.row is not None:
            return tensors.by_parts(self, predict, X)
        x = X.tocsr() if hasattr(X, "tocsr") else matrix_of_frame(X, "X") if hasattr(X, "iloc") else np.asarray(X)
        self.check_width(x.shape)
        network, dtype, rows = self.network, self.network.dtype, x.shape[0]
        # Several threads of a worker predict with one model, and scratch is one thread's.
        network = network.reusing() if isinstance(network, Reusing) else copy.copy(network)
        step = max(_ROWS, _BYTES // (x.shape[1] * dtype.itemsize))
        scratch, found = np.empty((min(step, rows), x.shape[1]) if x.dtype != dtype else 0, dtype), None
        for start in range(0, max(rows, 1), step):
            stop = min(start + step, rows)
            part = predict(network, _converted(arrays.rows(x, start, stop), dtype, scratch))
            if found is None:
                found = np.empty((rows, *part.shape[1:]), part.dtype)
            found[start:stop] = part
        return found

    def _function(self, method: str) -> Predict:
        """Return what a method does with rows that are ready, or raise TypeError where the model cannot do it."""
        model, params, classes = self.network, self.params, self.classes
        if method == "decision_function" and isinstance(model, Scoring):
            return lambda own, x: own.scores(params, x)  # type: ignore[attr-defined]  # a copy of the model
        if method == "predict_proba" and isinstance(model, Probabilistic):
            return lambda own, x: own.predict_proba(params, x)  # type: ignore[attr-defined]  # a copy of the model
        if method != "predict":
            what = {"decision_function": "scores", "predict_proba": "predict_proba"}[method]
            raise TypeError(
                f"{type(model).__name__} has no {what}, so there is no {method}: give the model that method, or use predict"
            )
        if classes is None:
            return lambda own, x: own.predict(params, x)
        return lambda own, x: classes.take(own.predict(params, x))


def _loaded(
    network: bytes,
    signature: Signature,
    params: Array,
    classes: Array | None,
    feature_names: tuple[object, ...] | None = None,
) -> TrainedModel:
    return TrainedModel(pickle.loads(network), signature, params, classes, feature_names)


def _converted(x: Matrix, dtype: np.dtype[Any], scratch: Array) -> Matrix:
    """Return rows of X in the model's dtype; dense ones that have another lie in the scratch."""
    if arrays.is_sparse(x):
        return x.astype(dtype, copy=False)
    if x.dtype == dtype:
        return x
    converted = scratch[: len(x)]
    converted[...] = x
    return converted
