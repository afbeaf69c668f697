"""Held-out score: scikit-learn's scorers on what all ranks predict of their rows, one value an evaluation.

Predictions are brought together, rows are not, unless the scorer wants to see them. scikit-learn is loaded on the first rank alone, when
the first score is due: before the training clock starts, and only where a scorer was asked for.
"""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, final

import numpy as np

from scaleml import arrays
from scaleml.arrays import Array, Matrix, to_numpy
from scaleml.comm.communicator import Communicator
from scaleml.data.piece import Arrays
from scaleml.data.stream import Stream
from scaleml.devices import Device, host_copy
from scaleml.models.flat_model import FlatModel, Probabilistic, Scoring

Method = Literal["predict", "decision_function", "predict_proba"]
"""What a scorer asks an estimator for."""
Scorer = Callable[[Any, Any, Any], float]
"""``scorer(estimator, X, y)``: scikit-learn's convention; larger is better."""


@dataclass(frozen=True)
class ScoreRule:
    """How held-out rows are scored.

    Parameters
    ----------
    scorer : str or callable
        One of scikit-learn's names, or ``scorer(estimator, X, y)``.
    name : str
        What its score is called.
    method : {"predict", "decision_function", "predict_proba"} or None
        All that it asks an estimator for; None for a function that may do anything with the estimator and the rows.
    classes : (k,) array or None
        The labels, sorted; None for numbers.
    any_shape : bool
        Whether rows have any shape and dtype: a model gets them as they are.
    """

    scorer: str | Scorer
    name: str
    method: Method | None
    classes: Array | None
    any_shape: bool = False


@final
class HeldOutScore:
    """Scores the held-out rows of all ranks that train.

    Parameters
    ----------
    rule : ScoreRule
    model : FlatModel
    group : Communicator
        The ranks that train.
    held_out : Arrays or Stream
        This rank's part, in the processor's memory.
    device : Device
        Where predictions are made.
    """

    def __init__(
        self, rule: ScoreRule, model: FlatModel, group: Communicator, held_out: Arrays | Stream, device: Device
    ) -> None:
        self._rule, self._model, self._group, self._held_out, self._device = rule, model, group, held_out, device
        self._judge: _Judge | None = None
        self._rows: tuple[Any, Array, Array | None] | None = None

    def of(self, w: Array) -> float:
        """Return the score of the parameters ``w`` (P,), the same on all ranks; collective. NaN where they are no finite numbers."""
        if self._rows is None:
            self._rows = self._gathered_rows()
        method, found, put = self._rule.method, None, self._device.put
        if method is not None:
            there = put(w)
            parts = [host_copy(answer(self._model, there, put(x), method)) for x, _, _ in self._blocks()]
            found = self._gathered(np.concatenate(parts))
        w = to_numpy(w)
        score = np.full(1, np.nan)
        if self._group.rank == 0 and np.isfinite(w).all() and (found is None or np.isfinite(found).all()):
            self._judge = self._judge or _Judge(self._rule)
            score[0] = self._judge(_StandIn(self._model, w, self._rule, found), *self._rows)
        self._group.broadcast(score)
        return float(score[0])

    def _blocks(self) -> Iterator[Arrays]:
        """Yield this rank's rows; of those that are read from disk a block, which holds until the next one is asked for."""
        held_out = self._held_out
        for block in held_out.blocks() if isinstance(held_out, Stream) else [held_out]:
            self._group.check()
            yield block

    def _gathered_rows(self) -> tuple[Any, Array, Array | None]:
        """Return X (row numbers, where nobody looks at it), y and weights of all rows, in the order of the ranks."""
        own, heavy, matrices = [], [], []
        for x, y, weights in self._blocks():
            own.append(np.array(y))
            heavy += [] if weights is None else [np.array(weights)]
            if self._rule.method is None:
                matrices.append(copy.deepcopy(x))  # what is streamed lies in memory that the next block takes
        whole = self._gathered(np.concatenate(own))
        mass = self._gathered(np.concatenate(heavy)) if heavy else None
        if not matrices:
            return np.arange(len(whole))[:, None], whole, mass
        return self._gathered_matrix(arrays.concatenate_rows(matrices)), whole, mass

    def _gathered_matrix(self, x: Matrix) -> Matrix:
        if not arrays.is_sparse(x):
            return self._gathered(x)
        lengths = self._gathered(np.diff(x.indptr))
        indptr = np.concatenate([np.zeros(1, lengths.dtype), np.cumsum(lengths)])
        return type(x)((self._gathered(x.data), self._gathered(x.indices), indptr), (len(lengths), x.shape[1]))  # type: ignore[call-arg]

    def _gathered(self, part: Array) -> Array:
        """Return the rows of all ranks; collective."""
        if self._group.size == 1:
            return part
        found = self._group.allgather_bytes(np.ascontiguousarray(part).tobytes())
        return np.frombuffer(b"".join(found), part.dtype).reshape(-1, *part.shape[1:])


def answer(model: FlatModel, w: Array, x: Matrix, method: Method) -> Array:
    """Return what a model says of rows: class codes or values, scores, or probabilities.

    Raises
    ------
    ValueError, TypeError
        Where the model knows none.
    """
    if method == "predict":
        return model.predict(w, x)
    if method == "predict_proba" and isinstance(model, Probabilistic):
        return model.predict_proba(w, x)
    if method == "decision_function" and isinstance(model, Scoring):
        return model.scores(w, x)
    raise TypeError(f"{type(model).__name__} has no {method}, which the scorer asks for: choose another scoring")


@final
class _Judge:
    """A scorer at work; loads scikit-learn."""

    def __init__(self, rule: ScoreRule) -> None:
        from sklearn.metrics import get_scorer

        self._classes = rule.classes
        self._scorer: Any = get_scorer(rule.scorer)
        metric = getattr(self._scorer, "_score_func", None)
        self._is_weighted = metric is not None and "sample_weight" in inspect.signature(metric).parameters

    def __call__(self, stand_in: _StandIn, x: Any, y: Array, weights: Array | None) -> float:
        more = {"sample_weight": weights} if weights is not None and self._is_weighted else {}
        with warnings.catch_warnings():  # of a class that nobody predicts yet, at every evaluation
            warnings.simplefilter("ignore")
            return float(self._scorer(stand_in.as_estimator(), x, self._named(y), **more))

    def _named(self, y: Array) -> Array:
        return y if self._classes is None else self._classes.take(y.astype(np.int64))


@final
class _StandIn:
    """What a scorer takes for a fitted estimator: knows the predictions of the held-out rows, or the model."""

    def __init__(self, model: FlatModel, w: Array, rule: ScoreRule, found: Array | None) -> None:
        self._model, self._w, self._rule, self._found = model, w, rule, found

    def as_estimator(self) -> Any:
        """Return an estimator that has the methods that the scorer may ask for."""
        from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin

        classes = self._rule.classes
        kind = RegressorMixin if classes is None else ClassifierMixin
        methods: tuple[Method, ...] = ("predict", "decision_function", "predict_proba")
        offered: dict[str, Any] = {"__sklearn_is_fitted__": lambda _: True}
        for method in methods:
            if self._rule.method in (None, method):
                offered[method] = self._method(method)
        estimator = type("HeldOutModel", (kind, BaseEstimator), offered)()
        if classes is not None:
            estimator.classes_ = classes
        return estimator

    def _method(self, name: Method) -> Any:
        def method(_: object, x: Any) -> Array:
            return self._say(name, x)

        method.__name__ = name  # scikit-learn calls it by that
        return method

    def _say(self, method: Method, x: Any) -> Array:
        found = self._found
        if found is None:
            as_is = self._rule.any_shape or arrays.is_sparse(x)
            rows = x if as_is else np.asarray(x, self._model.dtype)
            found = answer(self._model, self._w, rows, method)
        classes = self._rule.classes
        return classes.take(found) if method == "predict" and classes is not None else found
