"""Columns of numbers: X as an array or CSR matrix, y and weights as arrays, each value checked and named where it is wrong."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from numbers import Real
from typing import Any

import numpy as np

from scaleml import arrays
from scaleml.arrays import Array, Matrix
from scaleml.data.bad_columns import (
    REAL,
    bad_values_of_frame,
    kind_of,
    kinds_of_frame,
    listed,
    not_finite,
    refuse_kinds,
)


def refuse_pieces(given: object, name: str) -> None:
    """Raise TypeError for a list of Dask's delayed values or collections: nobody knows how many rows each has."""
    first = given[0] if isinstance(given, list | tuple) and given else None
    if type(first).__module__.split(".")[0] == "dask":
        raise TypeError(
            f"{name} is a list of {type(first).__module__}.{type(first).__name__}: make one dataframe of such parts, "
            "dask.dataframe.from_delayed(parts), or one array, dask.array.concatenate([dask.array.from_delayed(part, shape, dtype) "
            "for part in parts])"
        )


def as_matrix(given: object, name: str) -> Matrix:
    """Return X as a 2-d array or a CSR matrix of real numbers; raise ValueError or TypeError if it is none."""
    refuse_pieces(given, name)
    if type(given).__module__.split(".")[0] == "dask":
        raise TypeError(f"{name} is a Dask collection: pass {name}.compute() if it fits into this process's memory")
    if given is None or isinstance(given, str | bytes | os.PathLike):
        raise TypeError(
            f"{name} is {given!r}: pass the rows themselves, as an array, a DataFrame or a CSR matrix; if it is a file, load it"
        )
    x: Any = given
    if hasattr(x, "tocsr"):
        x = x.tocsr()
    elif hasattr(x, "iloc"):  # a pandas frame
        x = matrix_of_frame(x, name)
    else:
        try:
            x = np.asarray(x)
        except ValueError:
            raise ValueError(
                f"the rows of {name} have different lengths: each needs the same number of columns"
            ) from None
    kind = x.dtype
    if kind.kind not in REAL:
        raise TypeError(
            f"{name} has dtype {kind}, but a model needs real numbers: convert it with {name}.astype('float32'), and encode "
            "text or categories first (sklearn.preprocessing.OneHotEncoder, HashingVectorizer)"
        )
    if x.ndim != 2:
        hint = f": reshape one column with {name}.reshape(-1, 1)" if x.ndim == 1 else ""
        raise ValueError(f"{name} has shape {tuple(x.shape)}, but must be 2-d (rows, features){hint}")
    if x.shape[0] == 0 or x.shape[1] == 0:
        raise ValueError(f"{name} has shape {tuple(x.shape)}: at least one row and one column are needed")
    return x


def as_column(given: object, what: str, n: int, name: str) -> Array:
    """Return y or the weights as an array of ``n`` rows; raise ValueError for another shape."""
    refuse_pieces(given, what)
    values = array_of_column(given)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim not in (1, 2) or (what == "sample_weight" and values.ndim != 1):
        raise ValueError(f"{what} has shape {values.shape}: must be one value a row of {name}, shape ({n},)")
    if values.shape[0] != n:
        raise ValueError(
            f"{name} has {n} rows but {what} has {values.shape[0]}: they must be the same rows in the same order"
        )
    return values


def as_targets(y: Array, name: str = "y", first: int = 0) -> Array:
    """Return real targets; raise for others, naming the row, counted from ``first``."""
    y = _numbers(y, name, first)
    if y.dtype.kind not in REAL:
        raise TypeError(
            f"{name} has dtype {y.dtype}, but regression needs real numbers: for labels train a classifier (an estimator such as "
            "SGDClassifier, or a model with loss='log_loss')"
        )
    _refuse_non_finite(y, name, first)
    return y


def as_weights(weights: Array, name: str = "sample_weight", first: int = 0) -> Array:
    """Return weights; raise for what is no weight, naming the row, counted from ``first``."""
    weights = _numbers(weights, name, first)
    if weights.dtype.kind not in REAL:
        raise TypeError(f"{name} has dtype {weights.dtype}: must be real numbers")
    _refuse_non_finite(weights, name, first)
    if (weights < 0).any():
        row = int(np.flatnonzero(weights < 0)[0])
        raise ValueError(f"{name} is {weights[row]} at row {first + row}: must not be negative")
    return weights


def _numbers(values: Array, what: str, first: int) -> Array:
    """Return objects that are numbers as such, what is missing as NaN, as scikit-learn does; other values as they are."""
    if values.dtype != object:
        return values
    flat, rows = values.ravel(), len(values)
    for place, value in enumerate(flat):
        if not isinstance(value, Real) and not is_missing(value):
            row = first + place * rows // flat.size
            raise TypeError(
                f"{what} has dtype object and holds {value!r} (row {row}), but real numbers are needed: convert it "
                "(pandas.to_numeric); for labels train a classifier (an estimator such as SGDClassifier, or a model with loss='log_loss')"
            )
    numbers = [np.nan if is_missing(value) else float(value) for value in flat]
    return np.array(numbers, np.float64).reshape(values.shape)


def refuse_no_weight(any_weight: bool, where: str = "everywhere") -> None:
    """Raise ValueError unless some row counts, of all or of those ``where``."""
    if not any_weight:
        raise ValueError(
            f"sample_weight is 0 {where if where == 'everywhere' else f'for {where}'}: at least one row must count; pass rows of weight"
        )


def _refuse_non_finite(values: Array, what: str, first: int) -> None:
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(axis=1))[0])
        raise ValueError(f"{what} is {values[row]} at row {first + row}: must be finite; drop or impute such rows")


def cast_finite(values: Array, dtype: str, what: str, first: int = 0) -> Array:
    """Return the values in ``dtype``; raise ValueError for one that is too large, naming the row."""
    with np.errstate(over="ignore"):  # what is too large becomes infinite and is refused by its place
        cast = values.astype(dtype)
    if not np.isfinite(cast).all():
        row = int(np.flatnonzero(~np.isfinite(cast).reshape(len(cast), -1).all(axis=1))[0])
        raise ValueError(
            f"{what} is {values[row]} at row {first + row}, too large for {dtype}: scale it, or use dtype='float64' in the model"
        )
    return cast


def finite_block(
    block: Matrix, whole: Matrix, name: str = "X", first: int = 0, columns: Sequence[object] | None = None
) -> None:
    """Raise for a non-finite value in a block of rows, naming all columns of the whole that have one.

    Parameters
    ----------
    block : (m, features) array or CSR matrix
        Rows about to be copied to the workers, in their final dtype.
    whole : (n, features) array or CSR matrix
        What they are of.
    first : int
        Number of its first row in the user's data.
    columns : sequence, optional
        Names of the columns.
    """
    values = block.data if arrays.is_sparse(block) else block
    # A sum is finite if all is, and is ten times faster than looking at each value; only overflow needs the slow look.
    with np.errstate(all="ignore"):
        if np.isfinite(values.sum(dtype=values.dtype)):
            return
    if np.isfinite(values).all():
        return
    raise not_finite(whole, values.dtype.name, name, first, columns)


def check_width(shape: Sequence[float], features: int) -> None:
    """Raise ValueError unless X, of this shape, has the columns that a model was trained on; NaN is a width not known yet."""
    if len(shape) != 2 or not (shape[1] == features or shape[1] != shape[1]):
        raise ValueError(
            f"X has shape {tuple(shape)}, but this model was trained on {features} features: pass (rows, {features})"
        )


# What pandas holds.


def refuse_columns(columns: Iterable[tuple[object, object]], name: str) -> None:
    """Raise TypeError for columns that are no real numbers: all of them, by name, with the remedy.

    Parameters
    ----------
    columns : iterable of (column, dtype)
        Of a pandas or a Dask dataframe.
    name : str
        How the error calls the data.
    """
    refuse_kinds([(column, kind) for column, dtype in columns if (kind := kind_of(dtype))], name)


def names_of(given: object) -> tuple[object, ...] | None:
    """Return the names of the columns of a pandas or a Dask dataframe; None for anything else."""
    columns = getattr(given, "columns", None)
    return None if columns is None or not hasattr(given, "iloc") else tuple(columns)


def as_told(partition: Any, columns: Sequence[object] | None, name: str) -> Any:
    """Return a partition of a dataframe as it is; raise ValueError unless it has just the columns that Dask was told of, in their order.

    Examples
    --------
    >>> import pandas as pd
    >>> as_told(pd.DataFrame({"b": [2], "a": [1]}), ("a", "b"), "X")
    Traceback (most recent call last):
    ...
    ValueError: X has the columns 'b', 'a', in another order than what its dataframe says, 'a', 'b': make all partitions alike where \
they are read or made (frame[[...]]), or pass a right meta to from_map, from_delayed or map_partitions
    """
    own = names_of(partition)
    if columns is None or own is None or own == tuple(columns):
        return partition
    raise ValueError(
        f"{name} {_unlike(own, columns)} what its dataframe says, {listed(columns)}: make all partitions alike where they are read or "
        "made (frame[[...]]), or pass a right meta to from_map, from_delayed or map_partitions"
    )


def refuse_other_names(given: object, trained: Sequence[object] | None) -> None:
    """Raise ValueError for a pandas or Dask dataframe with other columns, by name or order, than those that a model was trained on.

    What has no names is taken by place, as scikit-learn does it, and so is a frame whose columns are just numbered.

    Examples
    --------
    >>> import pandas as pd
    >>> refuse_other_names(pd.DataFrame({"b": [2], "a": [1]}), ("a", "b"))
    Traceback (most recent call last):
    ...
    ValueError: X has the columns 'b', 'a', in another order than those this model was trained on, 'a', 'b': pass \
X[list(model.feature_names)]; X.to_numpy() goes by place alone
    """
    own = names_of(given)
    if trained is None or own is None or own == tuple(trained) or _is_numbered(own):
        return
    if _is_numbered(trained) and {*own} != {*trained}:
        return
    raise ValueError(
        f"X {_unlike(own, trained)} those this model was trained on, {listed(trained)}: pass X[list(model.feature_names)]; "
        "X.to_numpy() goes by place alone"
    )


def _is_numbered(columns: Sequence[object]) -> bool:
    """Whether these are the names that pandas gives to columns without any."""
    return tuple(columns) == tuple(range(len(columns)))


def _unlike(own: Sequence[object], columns: Sequence[object]) -> str:
    """Say how a frame's own columns differ from others, up to these."""
    lacks, has = [c for c in columns if c not in own], [c for c in own if c not in columns]
    wrong = [f"{verb} {listed(names)}" for verb, names in (("lacks", lacks), ("has", has)) if names]
    return f"{' and '.join(wrong)}, unlike" if wrong else f"has the columns {listed(own)}, in another order than"


def matrix_of_frame(given: object, name: str) -> Array:
    """Return a pandas frame as a 2-d array of real numbers; what is missing becomes NaN.

    Raises
    ------
    TypeError
        For columns that are no numbers, by name, with the remedy.
    """
    frame: Any = given
    if frame.ndim == 2:
        if any(kind_of(dtype) for dtype in frame.dtypes):
            refuse_kinds(kinds_of_frame(frame), name, bad_values_of_frame(frame))
        if any(not isinstance(kind, np.dtype) for kind in frame.dtypes):
            return frame.to_numpy(dtype=np.float64, na_value=np.nan)  # pandas' own numbers, possibly with gaps
    values = frame.to_numpy()
    if values.dtype == object and frame.ndim == 2:  # numbers and booleans side by side
        values = frame.to_numpy(dtype=np.float64, na_value=np.nan)
    return values


def array_of_column(given: object) -> Array:
    """Return y or weights as an array; pandas' nullable numbers become NumPy's, what is missing NaN."""
    values: Any = given
    kind = getattr(values, "dtype", None)
    if hasattr(values, "iloc") and getattr(values, "ndim", 1) == 2 and values.shape[1] == 1:
        values = values.iloc[:, 0]
        kind = values.dtype
    if kind is not None and hasattr(kind, "na_value") and getattr(kind, "kind", "O") in REAL:
        if values.isna().any():
            return values.to_numpy(dtype=np.float64, na_value=np.nan)
        return values.to_numpy(dtype=kind.numpy_dtype)
    return np.asarray(values)


def is_missing(value: object) -> bool:
    """Whether this is None, NaN, or what pandas has for a missing value, which differs from itself, or knows not.

    Examples
    --------
    >>> import pandas as pd
    >>> [is_missing(value) for value in (None, float("nan"), pd.NA, pd.NaT, "", 0)]
    [True, True, True, True, False, False]
    """
    same: object = value == value
    return value is None or not isinstance(same, bool | np.bool_) or not same
