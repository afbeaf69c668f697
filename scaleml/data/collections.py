"""Dask collections: X, y and weights checked by what is known without computing, and paired partition by partition.

On the client only: it imports ``dask.array`` and ``dask.dataframe`` where such collections are given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from scaleml.data.bad_columns import REAL
from scaleml.data.columns import as_column, refuse_columns


@dataclass(frozen=True)
class Partitions:
    """The partitions of X with those of y and the weights.

    Parameters
    ----------
    x, y : list
        Delayed partitions; those of y may be arrays that this process holds.
    weights : list or None
        The same for the weights.
    rows : tuple of int or None
        Rows of each partition; None if that is found only by computing them.
    row_nbytes : int or None
        Bytes of a row of dense X as Dask holds it, if known.
    """

    x: Sequence[object]
    y: Sequence[object]
    weights: Sequence[object] | None
    rows: tuple[int, ...] | None
    row_nbytes: int | None

    @property
    def largest_nbytes(self) -> int | None:
        """Bytes of the largest partition of X, if they are known."""
        return None if self.rows is None or self.row_nbytes is None else max(self.rows) * self.row_nbytes

    @property
    def firsts(self) -> list[int | None]:
        """Number of the first row of each partition."""
        if self.rows is None:
            return [None] * len(self.x)
        return [int(end) - size for end, size in zip(np.cumsum(self.rows), self.rows, strict=True)]


def is_collection(*values: object) -> bool:
    """Return whether any of these is a Dask collection; without importing Dask where none can be."""
    candidates = [value for value in values if hasattr(value, "__dask_graph__")]
    if not candidates:
        return False
    from dask.base import is_dask_collection

    return any(is_dask_collection(value) for value in candidates)


def partitions_of(X: object, y: object, sample_weight: object, name: str = "X") -> Partitions:
    """Pair the partitions of X, a Dask collection, with those of y and the weights, of any kind.

    What they are all made of is in the graph of each partition, once: they are to be computed together.

    Raises
    ------
    ValueError, TypeError
        For what is no table of numbers, and for rows that cannot be paired, with the remedy.
    """
    x: Any = X
    rows, row_nbytes = None, None
    if is_frame(x):
        x = _checked_frame(x, name)
    elif is_array(x):
        x = _checked_array(x, name)
        rows = _known(x.chunks[0])
        width = x.shape[1] * x.dtype.itemsize
        row_nbytes = None if np.isnan(width) else int(width)
    else:
        raise _no_table(x, name)
    count = x.npartitions if is_frame(x) else len(x.chunks[0])
    if y is None:
        raise ValueError(f"y is None, but {name} needs one label or target a row")
    paired = [x, _paired(y, "y", rows, count, x, name)]
    if sample_weight is not None:
        paired.append(_paired(sample_weight, "sample_weight", rows, count, x, name))
    delayed = _delayed(paired, count)
    return Partitions(delayed[0], delayed[1], delayed[2] if len(delayed) > 2 else None, rows, row_nbytes)


def is_frame(value: object) -> bool:
    """Return whether this is a Dask dataframe or series."""
    return _comes_from(value, "dask.dataframe")


def is_array(value: object) -> bool:
    """Return whether this is a Dask array."""
    return _comes_from(value, "dask.array")


def _comes_from(value: object, module: str) -> bool:
    # By name: neither needs to be imported to say no, and a Delayed has every attribute.
    return is_collection(value) and any(kind.__module__.startswith(module) for kind in type(value).__mro__)


def _checked_frame(X: Any, name: str) -> Any:
    if X.ndim != 2:
        raise ValueError(f"{name} is a Dask series: a table of rows and columns is needed; use {name}.to_frame()")
    if len(X.columns) == 0:
        raise ValueError(f"{name} has no columns: at least one is needed")
    refuse_columns(X.dtypes.items(), name)
    return X


def _checked_array(X: Any, name: str) -> Any:
    if X.ndim != 2:
        hint = f": reshape one column with {name}.reshape(-1, 1)" if X.ndim == 1 else ""
        raise ValueError(f"{name} has shape {X.shape}, but must be 2-d (rows, features){hint}")
    if X.dtype.kind not in REAL:
        raise TypeError(
            f"{name} has dtype {X.dtype}, but a model needs real numbers: convert it with {name}.astype('float32'), and "
            "encode text or categories first (sklearn.preprocessing.OneHotEncoder, HashingVectorizer)"
        )
    if 0 in X.shape:
        raise ValueError(f"{name} has shape {X.shape}: at least one row and one column are needed")
    return X if len(X.chunks[1]) == 1 else X.rechunk({1: -1})


def _paired(values: Any, what: str, rows: tuple[int, ...] | None, count: int, X: Any, name: str) -> Any:
    if is_frame(values):
        values = _one_column(values, what)
        if values.npartitions != count:
            raise _not_aligned(what, f"{values.npartitions} partitions", count, name)
        return values
    if is_array(values):
        return _paired_array(values, what, rows, count, name)
    if is_collection(values):
        raise _no_table(values, what)
    if rows is None:
        remedy = f"{name}.to_dask_array(lengths=True)" if is_frame(X) else f"{name}.compute_chunk_sizes()"
        raise ValueError(
            f"{what} is a {type(values).__name__} of this process but the rows of {name}'s partitions are not known, so they "
            f"cannot be paired: pass {remedy} instead of {name}, or {what} as a Dask collection with the same partitions"
        )
    return _slices(values, what, rows, name)


def _one_column(values: Any, what: str) -> Any:
    if values.ndim == 2 and len(values.columns) == 1:
        return values[values.columns[0]]
    return values


def _paired_array(values: Any, what: str, rows: tuple[int, ...] | None, count: int, name: str) -> Any:
    if values.ndim == 0:
        raise ValueError(f"{what} has shape (): must be one value a row of {name}")
    if values.ndim > 1 and any(len(chunks) > 1 for chunks in values.chunks[1:]):
        values = values.rechunk(dict.fromkeys(range(1, values.ndim), -1))
    known = _known(values.chunks[0])
    if rows is not None and known is not None:
        if sum(known) != sum(rows):
            raise ValueError(
                f"{name} has {sum(rows)} rows but {what} has {sum(known)}: they must be the same rows in the same order"
            )
        if known != rows:
            values = values.rechunk({0: rows})
    elif len(values.chunks[0]) != count:
        raise _not_aligned(what, f"{len(values.chunks[0])} chunks", count, name)
    return values


def _slices(values: Any, what: str, rows: tuple[int, ...], name: str) -> list[Any]:
    values = as_column(values, what, sum(rows), name)
    ends = np.cumsum(rows)
    return [values[end - size : end] for end, size in zip(ends, rows, strict=True)]


def _delayed(paired: Sequence[Any], count: int) -> list[Sequence[object]]:
    """Return the partitions of each; what some of them are made of is in all of their graphs under one name."""
    found = list(paired)
    frames = {position: values for position, values in enumerate(paired) if is_frame(values)}
    together = _together(list(frames.values()), count if len(frames) < len(paired) else None)
    for position, partitions in zip(frames, together, strict=True):
        found[position] = partitions
    arrays = {position: values for position, values in enumerate(paired) if is_array(values)}
    for position, values in arrays.items():
        layers = set(values.dask.layers)
        shared = any(layers & set(other.dask.layers) for other in arrays.values() if other is not values)
        found[position] = list(values.to_delayed(optimize_graph=not shared).ravel())
    return found


def _together(frames: Sequence[Any], count: int | None) -> list[Sequence[object]]:
    """Return the partitions of dataframes: optimized as one, for apart each would read a file anew, and merge its parts differently.

    ``count`` says how many partitions there must be, if that is known.
    """
    if not frames:
        return []
    first, *others = frames
    if others:
        joined = first.map_partitions(
            _tuple, *others, meta=first._meta, enforce_metadata=False, align_dataframes=False, transform_divisions=False
        )
        parts = list(joined.to_delayed())
        found: list[Sequence[object]] = [[part[position] for part in parts] for position in range(len(frames))]
    else:
        found = [list(first.to_delayed())]
    if count is None or len(found[0]) == count:
        return found
    return [list(frame.to_delayed(optimize_graph=False)) for frame in frames]


def _tuple(*partitions: object) -> tuple[object, ...]:
    return partitions


def _known(chunks: tuple[Any, ...]) -> tuple[int, ...] | None:
    return None if any(np.isnan(size) for size in chunks) else tuple(int(size) for size in chunks)


def _not_aligned(what: str, found: str, count: int, name: str) -> ValueError:
    return ValueError(
        f"{name} has {count} partitions but {what} has {found}, of unknown sizes, so their rows cannot be paired: take both "
        f"from one dataframe, or make the sizes known with compute_chunk_sizes() or to_dask_array(lengths=True)"
    )


def _no_table(value: object, what: str) -> TypeError:
    return TypeError(
        f"{what} is a {type(value).__module__}.{type(value).__name__}: pass a Dask array or dataframe, such as "
        "dask.array.from_delayed(...) or dask.dataframe.from_delayed(...) makes of delayed values"
    )
