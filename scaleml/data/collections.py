"""Dask collections: X, y and weights checked by what is known without computing, and paired row by row.

On the client only: it imports ``dask.array`` and ``dask.dataframe`` where such collections are given.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from scaleml.data.bad_columns import REAL
from scaleml.data.columns import as_column, names_of, refuse_columns, refuse_pieces
from scaleml.data.partitions import Columns, Partitions, delayed_together


def is_collection(*values: object) -> bool:
    """Return whether any of these is a Dask collection, or has some as inputs; without importing Dask where none can be."""
    each = [
        part
        for value in values
        for part in (value.values() if isinstance(value, dict) else value if isinstance(value, tuple) else (value,))
    ]
    candidates = [value for value in each if hasattr(value, "__dask_graph__")]
    if not candidates:
        return False
    from dask.base import is_dask_collection

    return any(is_dask_collection(value) for value in candidates)


@dataclass(frozen=True)
class Table:
    """X, a Dask collection, with y and weights of any kind, as a user passed them; ``name`` is what errors call X."""

    X: object
    y: object
    sample_weight: object = None
    name: str = "X"


def partitions_of(*tables: Table) -> list[Partitions]:
    """Pair, for each table, the partitions of X with those of y and the weights.

    What they are all made of is in the graph of each partition, once: they are to be computed together.

    Raises
    ------
    ValueError, TypeError
        For what is no table of numbers, and for rows that cannot be paired, with the remedy.
    """
    checked = [_checked(table) for table in tables]
    return [
        replace(known, x=parts[0], y=parts[1], weights=parts[2] if len(parts) > 2 else None)
        for (known, _), parts in zip(checked, delayed_together([columns for _, columns in checked]), strict=True)
    ]


def _checked(table: Table) -> tuple[Partitions, Columns]:
    """Return what is known of the partitions of a table before they are made, and of what they will be."""
    x: Any = table.X
    name, y = table.name, table.y
    rows, row_nbytes = None, None
    refuse_no_table(x, name)
    if is_frame(x):
        x = _checked_frame(x, name)
    else:
        x = _checked_array(x, name)
        rows = known_rows(x.chunks[0])
        width = x.shape[1] * x.dtype.itemsize
        row_nbytes = None if np.isnan(width) else int(width)
    if y is None:
        raise ValueError(f"y is None, but {name} needs one label or target a row")
    parts = [x, _paired(y, "y", rows, x, name)]
    if table.sample_weight is not None:
        parts.append(_paired(table.sample_weight, "sample_weight", rows, x, name))
    targets = names_of(parts[1]) if is_frame(parts[1]) else None
    return Partitions((), (), None, rows, row_nbytes, names_of(x), targets), Columns(parts, rows)


def refuse_no_table(X: object, name: str) -> None:
    """Raise TypeError for a Dask collection that is neither array nor dataframe, and for a list of such."""
    refuse_pieces(X, name)
    if is_collection(X) and not (is_frame(X) or is_array(X)):
        raise no_table(X, name)


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


def _paired(values: Any, what: str, rows: tuple[int, ...] | None, X: Any, name: str) -> Any:
    if is_frame(values):
        return _one_column(values)
    if is_array(values):
        return paired_array(values, what, rows, name)
    if is_collection(values):
        raise no_table(values, what)
    if rows is None:
        remedy = f"{name}.to_dask_array().compute_chunk_sizes()" if is_frame(X) else f"{name}.compute_chunk_sizes()"
        raise ValueError(
            f"{what} is a {type(values).__name__} of this process but the rows of {name}'s partitions are not known, so they "
            f"cannot be paired: pass {remedy} instead of {name}, or {what} as a Dask collection with the same partitions"
        )
    return _slices(values, what, rows, name)


def _one_column(values: Any) -> Any:
    if values.ndim == 2 and len(values.columns) == 1:
        return values[values.columns[0]]
    return values


def paired_array(values: Any, what: str, rows: tuple[int, ...] | None, name: str) -> Any:
    """Return a Dask array of one row for each of X, cut as X is, as far as that is known."""
    if values.ndim == 0:
        raise ValueError(f"{what} has shape (): must be one value a row of {name}")
    if values.ndim > 1 and any(len(chunks) > 1 for chunks in values.chunks[1:]):
        values = values.rechunk(dict.fromkeys(range(1, values.ndim), -1))
    known = known_rows(values.chunks[0])
    if rows is not None and known is not None:
        if sum(known) != sum(rows):
            raise ValueError(
                f"{name} has {sum(rows)} rows but {what} has {sum(known)}: they must be the same rows in the same order"
            )
        if known != rows:
            values = values.rechunk({0: rows})
    return values


def _slices(values: Any, what: str, rows: tuple[int, ...], name: str) -> list[Any]:
    values = as_column(values, what, sum(rows), name)
    ends = np.cumsum(rows)
    return [values[end - size : end] for end, size in zip(ends, rows, strict=True)]


def known_rows(chunks: tuple[Any, ...]) -> tuple[int, ...] | None:
    """Return the rows of each chunk; None where they are not known."""
    return None if any(np.isnan(size) for size in chunks) else tuple(int(size) for size in chunks)


def is_bag(value: object) -> bool:
    """Return whether this is a Dask bag."""
    return _comes_from(value, "dask.bag")


def is_several(y: Any) -> bool:
    """Return whether y has several columns, by its shape; raise TypeError for what has none."""
    refuse_no_table(y, "y")
    shape = getattr(y, "shape", None) or np.shape(y)
    return len(shape) == 2 and shape[1] != 1


def no_table(value: object, what: str) -> TypeError:
    """Return the error for a Dask collection that is neither array nor dataframe."""
    remedy = (
        f"{what}.to_dataframe() makes of a bag"
        if is_bag(value)
        else "dask.array.from_delayed(...) or dask.dataframe.from_delayed(...) makes of delayed values"
    )
    return TypeError(
        f"{what} is a {type(value).__module__}.{type(value).__name__}: pass a Dask array or dataframe, such as {remedy}"
    )
