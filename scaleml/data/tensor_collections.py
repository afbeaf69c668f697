"""Dask collections of any shape: one array or several inputs of equal length, paired row by row with y and the weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from scaleml.data.bad_columns import REAL
from scaleml.data.collections import (
    Table,
    is_array,
    is_collection,
    is_frame,
    known_rows,
    no_table,
    paired_array,
)
from scaleml.data.columns import names_of, refuse_columns
from scaleml.data.partitions import Columns, Partitions, delayed_together
from scaleml.data.row_dtype import ALONE, Row, record_of, row_of
from scaleml.data.tensor_source import refuse_other_rows
from scaleml.data.tensors import no_numbers, plain_array, several_of


@dataclass(frozen=True)
class _Checked:
    """A table whose X and y may have several inputs each: what is known, all its parts, and how many of them are whose."""

    known: Partitions
    columns: Columns
    inputs: tuple[str, ...]
    targets: tuple[str, ...]


def tensor_partitions_of(*tables: Table) -> list[Partitions]:
    """Pair, for each table, the partitions of X with those of y and the weights; of several inputs a partition is a dict.

    Raises
    ------
    ValueError, TypeError
        For what holds no rows of numbers, and for rows that cannot be paired, with the remedy.
    """
    checked = [_checked(table) for table in tables]
    found = delayed_together([each.columns for each in checked])
    result = []
    for each, parts in zip(checked, found, strict=True):
        many = len(each.inputs), len(each.inputs) + len(each.targets)
        result.append(
            replace(
                each.known,
                x=_together(each.inputs, parts[: many[0]]),
                y=_together(each.targets, parts[many[0] : many[1]]),
                weights=parts[many[1]] if len(parts) > many[1] else None,
            )
        )
    return result


def input_partitions(X: object, name: str = "X") -> Partitions:
    """Return the partitions of X alone; see `tensor_partitions_of`."""
    inputs, first, rows = _inputs(X, name)
    parts = _inputs_paired(inputs, first, rows, name)
    (found,) = delayed_together([Columns(parts, rows)])
    return Partitions(_together(tuple(inputs), found), (), None, rows, None, names_of(X))


def rows_of_inputs(X: object, dtype: str, name: str = "X") -> Row | None:
    """Return what a row of Dask collections becomes, as far as that is known without computing; None where it is not."""
    inputs, _, _ = _inputs(X, name)
    rows = {}
    for key, each in inputs.items():
        shape, kind = each.shape[1:], getattr(each, "dtype", None)
        if is_frame(each) and each.ndim == 2:
            shape, kinds = (len(each.columns),), list(each.dtypes)
            kind = np.result_type(*kinds) if kinds and all(isinstance(each, np.dtype) for each in kinds) else None
        if not isinstance(kind, np.dtype) or any(np.isnan(size) for size in shape):
            return None
        rows[key] = row_of(np.empty((0, *shape), kind), dtype)
    return rows[ALONE] if tuple(rows) == (ALONE,) else record_of(rows)


def _together(names: Sequence[str], parts: Sequence[Sequence[object]]) -> Sequence[object]:
    """Return the partitions of one input as they are, of several as dicts."""
    if names == (ALONE,):
        return parts[0]
    return [dict(zip(names, each, strict=True)) for each in zip(*parts, strict=True)]


def _checked(table: Table) -> _Checked:
    name = table.name
    inputs, first, rows = _inputs(table.X, name)
    parts = _inputs_paired(inputs, first, rows, name)
    if table.y is None:
        raise ValueError(f"y is None, but {name} needs one label or target a row")
    targets = _each(table.y, "y")
    parts += [_paired(each, _called("y", key), rows, first, name) for key, each in targets.items()]
    if table.sample_weight is not None:
        parts.append(_paired(table.sample_weight, "sample_weight", rows, first, name))
    row_nbytes = sum(0 if is_frame(each) else _row_nbytes(each) for each in inputs.values())
    wide = is_frame(table.y) and getattr(table.y, "ndim", 1) == 2 and len(names_of(table.y) or ()) > 1
    known = Partitions((), (), None, rows, row_nbytes or None, names_of(table.X), names_of(table.y) if wide else None)
    return _Checked(known, Columns(parts, rows), tuple(inputs), tuple(targets))


def _inputs(X: Any, name: str) -> tuple[dict[str, Any], Any, tuple[int, ...] | None]:
    """Return all inputs, checked, the first of them, and the rows of its partitions, if they are known."""
    inputs = {key: _checked_input(each, _called(name, key)) for key, each in _each(X, name).items()}
    first = next(iter(inputs.values()))
    return inputs, first, None if is_frame(first) else known_rows(first.chunks[0])


def _inputs_paired(inputs: dict[str, Any], first: Any, rows: tuple[int, ...] | None, name: str) -> list[Any]:
    return [first, *(_paired(each, _called(name, key), rows, first, name) for key, each in list(inputs.items())[1:])]


def _each(given: Any, name: str) -> dict[str, Any]:
    several = None if is_frame(given) or is_array(given) else several_of(given, name)
    return {ALONE: given} if several is None else several


def _called(name: str, key: str) -> str:
    return f"{name}[{key!r}]" if key else name


def _row_nbytes(x: Any) -> int:
    width = float(np.prod(x.shape[1:])) * x.dtype.itemsize
    return 0 if np.isnan(width) else int(width)


def _checked_input(x: Any, name: str) -> Any:
    """Return an input, its rows whole in each of its partitions."""
    if is_frame(x):
        if x.ndim == 2:
            refuse_columns(x.dtypes.items(), name)
        return x
    if not is_array(x):
        if is_collection(x):
            raise no_table(x, name)
        raise TypeError(
            f"{name} is a {type(x).__name__} of this process beside Dask collections: pass dask.array.from_array(...) of it, with their "
            "chunks along the first axis"
        )
    if x.dtype.kind not in REAL:
        raise no_numbers(x.dtype, name)
    if x.ndim == 0 or 0 in x.shape:
        raise ValueError(f"{name} has shape {x.shape}: at least one row, and one value a row, are needed")
    return with_whole_rows(x)


def with_whole_rows(x: Any) -> Any:
    """Return a Dask array chunked along its first axis alone."""
    cut = {axis: -1 for axis, chunks in enumerate(x.chunks) if axis and len(chunks) > 1}
    return x.rechunk(cut) if cut else x


def _paired(values: Any, what: str, rows: tuple[int, ...] | None, x: Any, name: str) -> Any:
    if is_frame(values):
        one = values.ndim == 2 and len(values.columns) == 1
        return values[values.columns[0]] if one else values
    if is_array(values):
        return paired_array(values, what, rows, name)
    if is_collection(values):
        raise no_table(values, what)
    if rows is None:
        remedy = f"{name}.to_dask_array().compute_chunk_sizes()" if is_frame(x) else f"{name}.compute_chunk_sizes()"
        raise ValueError(
            f"{what} is a {type(values).__name__} of this process but the rows of {name}'s partitions are not known, so they "
            f"cannot be paired: pass {remedy} instead of {name}, or {what} as a Dask collection with the same partitions"
        )
    found = plain_array(values)
    refuse_other_rows(sum(rows), len(found), name, what)
    ends = np.cumsum(rows)
    return [found[end - size : end] for end, size in zip(ends, rows, strict=True)]
