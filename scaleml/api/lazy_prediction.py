"""Lazy predictions of Dask collections: a task a block, the model as it is now sent once, as a task of its own."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import numpy as np
from dask.base import compute, tokenize
from dask.delayed import delayed
from dask.highlevelgraph import HighLevelGraph

from scaleml.api.tensor_prediction import KNOWN
from scaleml.arrays import Array
from scaleml.data.bad_columns import REAL
from scaleml.data.collections import Table, is_frame, partitions_of, refuse_no_table
from scaleml.data.columns import as_told, refuse_columns
from scaleml.data.partition import len_of
from scaleml.data.partitions import merged
from scaleml.data.row_dtype import refuse_other_row
from scaleml.data.sealed import Parcel, parcel, sealed
from scaleml.data.tensor_collections import input_partitions, rows_of_inputs, tensor_partitions_of
from scaleml.models import FlatModel, Signature

Names = tuple[object, ...] | None
"""Of columns, where they have some."""


class Predictor(Protocol):
    """A `TrainedModel`, as far as predicting block by block needs it."""

    network: FlatModel
    signature: Signature
    params: Array
    classes: Array | None

    def snapshot(self) -> Predictor: ...
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
    kept = model.snapshot()
    if model.signature.row is not None:
        row = rows_of_inputs(X, model.signature.dtype)
        if row is not None:
            refuse_other_row(row, model.signature.row, "X", KNOWN)
        return _blocks_of_tensors(X, sealed(partial(_apply_to_tensors, method, meta)), kept, meta)
    check_table(X)
    model.check_width((float("nan"), len(X.columns)) if is_frame(X) else X.shape)
    return blocks(X, _apply, (method,), kept, _token(kept), meta)


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
    if is_frame(x):
        return _blocks_of_frame(
            x, sealed(partial(_of_block, function, arguments, meta, tuple(x.columns))), model, token, meta
        )
    if len(x.chunks[1]) > 1:
        x = x.rechunk({1: -1})
    where = {"drop_axis": 1} if meta.ndim == 1 else {"chunks": (x.chunks[0], meta.shape[1:])}
    settings = {"dtype": meta.dtype, "meta": meta, "token": f"scaleml-{function.__name__.strip('_')}", **where}
    return x.map_blocks(sealed(partial(_of_block, function, arguments, meta, None)), sent(model, token), **settings)


def _blocks_of_frame(frame: Any, function: Callable[..., Array], model: object, token: str, meta: Array) -> Any:
    """Return an array of the partitions, as many as the dataframe has: it can be assigned to it.

    Made task by task: Dask fuses what ``map_partitions`` makes of a dataframe of one partition with its reading, and fails at the model.
    """
    import dask.array as da

    graph, (keys,) = merged([frame], merge_files=False)
    name = f"scaleml-predict-{tokenize(function, token, keys)}"
    source, sender = f"scaleml-rows-{tokenize(keys)}", f"scaleml-model-{token}"
    places = [(name, index, *(0 for _ in meta.shape[1:])) for index in range(len(keys))]
    layers = {
        source: graph,
        sender: {sender: parcel(model)},
        name: {place: (function, key, sender) for place, key in zip(places, keys, strict=True)},
    }
    whole = HighLevelGraph(layers, {source: set(), sender: set(), name: {source, sender}})
    chunks = ((np.nan,) * len(keys), *((size,) for size in meta.shape[1:]))
    return da.Array(whole, name, chunks, meta=meta)


def _blocks_of_tensors(X: Any, function: Callable[..., Array], model: Predictor, meta: Array) -> Any:
    """Return an array of the partitions of one or several inputs of any shape."""
    import dask.array as da

    parts, make = input_partitions(X), delayed(function, pure=True)
    brought = sent(model, _token(model))
    rows = parts.rows or (np.nan,) * len(parts.x)
    made = [
        da.from_delayed(make(part, brought), (size, *meta.shape[1:]), meta=meta)
        for part, size in zip(parts.x, rows, strict=True)
    ]
    return da.concatenate(made, allow_unknown_chunksizes=True)


def _apply_to_tensors(method: str, meta: Array, block: Any, model: Parcel) -> Array:
    return getattr(model.open(), method)(block) if len_of(block) else meta


def _of_block(
    function: Callable[..., Array],
    arguments: tuple[object, ...],
    meta: Array,
    columns: Names,
    block: Any,
    model: Parcel,
) -> Array:
    if not block.shape[0]:  # whose columns may be of any kind, or missing
        return meta
    return function(as_told(block, columns, "a partition of X"), *arguments, model.open())


def statistics(model: Predictor, X: Any, y: Any, sample_weight: Any) -> Array:
    """Return the summed statistics of the partitions of X: computed where these are, a few numbers of each brought here."""
    table = Table(X, y, sample_weight)
    (parts,) = partitions_of(table) if model.signature.row is None else tensor_partitions_of(table)
    weights = [None] * len(parts.x) if parts.weights is None else parts.weights
    function = delayed(sealed(partial(_statistics, parts.columns, parts.targets)), pure=True)
    brought = sent(model, _token(model))
    sums = [function(brought, *part) for part in zip(parts.x, parts.y, weights, strict=True)]
    return np.sum(compute(*sums), axis=0)


def sent(model: object, token: str) -> object:
    """Return a model, as it is now, as a task of its own, by name."""
    return delayed(parcel(model), name=f"scaleml-model-{token}", traverse=False)


def check_table(X: Any) -> None:
    """Refuse a Dask collection that is no table of numbers, by what is known without computing.

    Raises
    ------
    ValueError, TypeError
        With the remedy.
    """
    refuse_no_table(X, "X")
    if is_frame(X):
        if X.ndim != 2:
            raise ValueError("X is a Dask series: a table of rows and columns is needed; use X.to_frame()")
        refuse_columns(X.dtypes.items(), "X")
        return
    if X.ndim != 2:
        raise ValueError(f"X has shape {X.shape}, but must be 2-d (rows, features)")
    if X.dtype.kind not in REAL:
        raise TypeError(f"X has dtype {X.dtype}, but a model needs real numbers: convert it with X.astype('float32')")


def _token(model: Predictor) -> str:
    return str(tokenize(model.params, model.classes, model.network))


def _apply(block: object, method: str, model: object) -> Array:
    return getattr(model, method)(block)


def _statistics(columns: Names, targets: Names, sent: Parcel, x: Any, y: Any, weights: Any) -> Array:
    model: Predictor = sent.open()
    if not len_of(x) and not len_of(y):
        return model.no_statistics()
    return model.statistics(as_told(x, columns, "a partition of X"), as_told(y, targets, "a partition of y"), weights)
