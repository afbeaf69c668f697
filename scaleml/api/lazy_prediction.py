"""Lazy predictions of Dask collections: a task a block, the model sent once as a task of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from dask.base import compute, tokenize
from dask.delayed import delayed

from scaleml.arrays import Array
from scaleml.data.collections import Table, is_frame, partitions_of
from scaleml.data.columns import refuse_columns
from scaleml.models import FlatModel


class Predictor(Protocol):
    """A `TrainedModel`, as far as predicting block by block needs it."""

    network: FlatModel
    params: Array
    classes: Array | None

    def check_width(self, shape: tuple[float, ...]) -> None: ...
    def statistics(self, X: Any, y: Any, sample_weight: Any = None) -> Array: ...
    def no_statistics(self) -> Array: ...


def by_blocks(model: Predictor, method: str, X: Any, meta: Array) -> Any:
    """Return a Dask array of ``method`` of the blocks of X.

    Parameters
    ----------
    model : TrainedModel
        What predicts.
    method : str
        ``"predict"``, ``"predict_proba"`` or ``"decision_function"``.
    X : Dask array or dataframe
        Its chunks of rows become those of the result.
    meta : array
        The result for no rows.

    Raises
    ------
    ValueError, TypeError
        For columns other than those of the training data, as far as they are known.
    """
    if is_frame(X):
        if X.ndim != 2:
            raise ValueError("X is a Dask series: a table of rows and columns is needed; use X.to_frame()")
        refuse_columns(X.dtypes.items(), "X")
    model.check_width((float("nan"), len(X.columns)) if is_frame(X) else X.shape)
    return blocks(X, _apply, (method,), model, _token(model), meta)


def blocks(
    X: object, function: Callable[..., Array], arguments: tuple[object, ...], model: object, token: str, meta: Array
) -> object:
    """Return a Dask array of ``function(block, *arguments, model)`` for the blocks of rows of X.

    Parameters
    ----------
    X : Dask array or dataframe
        Its chunks of rows become those of the result.
    token : str
        Names the model.
    meta : array
        The result for no rows.
    """
    x: Any = X
    outputs = meta.shape[1] if meta.ndim == 2 else None
    if is_frame(x):
        found = x.map_partitions(function, *arguments, sent(model, token), meta=meta)
        if outputs is not None:  # its columns are known, whatever a dataframe's partitions say
            found._chunks = (found.chunks[0], (outputs,))
        return found
    if len(x.chunks[1]) > 1:
        x = x.rechunk({1: -1})
    where = {"drop_axis": 1} if outputs is None else {"chunks": (x.chunks[0], (outputs,))}
    settings = {"dtype": meta.dtype, "meta": meta, "token": f"scaleml-{function.__name__.strip('_')}", **where}
    return x.map_blocks(function, *arguments, sent(model, token), **settings)


def statistics(model: Predictor, X: Any, y: Any, sample_weight: Any) -> Array:
    """Return the summed statistics of the partitions of X: computed where these are, a few numbers of each brought here."""
    (parts,) = partitions_of(Table(X, y, sample_weight))
    weights = [None] * len(parts.x) if parts.weights is None else parts.weights
    brought, function = sent(model, _token(model)), delayed(_statistics, pure=True)
    sums = [function(brought, *part) for part in zip(parts.x, parts.y, weights, strict=True)]
    return np.sum(compute(*sums), axis=0)


def sent(model: object, token: str) -> object:
    """Return a model as a task of its own, by name."""
    return delayed(model, name=f"scaleml-model-{token}", traverse=False)


def _token(model: Predictor) -> str:
    return str(tokenize(model.params, model.classes, repr(model.network)))


def _apply(block: object, method: str, model: object) -> Array:
    return getattr(model, method)(block)


def _statistics(model: Predictor, x: Any, y: Any, weights: Any) -> Array:
    if x.shape[0] == 0:
        return model.no_statistics()
    return model.statistics(x, y, weights)
