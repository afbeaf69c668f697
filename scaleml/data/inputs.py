"""What a user passed as X, y, sample_weight: checked once, with errors that help."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from scaleml import arrays
from scaleml.data.frames import array_of_column, matrix_of_frame
from scaleml.data.labels import encode_labels


@dataclass(frozen=True)
class Inputs:
    """Checked data: ``x`` as given (dense or CSR, not copied), ``y`` encoded, ``classes`` as the user named them.

    Parameters
    ----------
    x : (n, features) array or CSR matrix
        Any real dtype; values are checked when they are copied to the workers.
    y : (n,) or (n, targets) array
        Class codes, 0 or 1 for two classes, or real targets.
    weights : (n,) array or None
        Sample weights.
    classes : array or None
        Sorted class labels; None for regression.
    """

    x: Any
    y: Any
    weights: Any
    classes: Any

    @property
    def rows(self) -> int:
        """Number of rows."""
        return int(self.x.shape[0])

    @property
    def features(self) -> int:
        """Columns of X."""
        return int(self.x.shape[1])

    @property
    def is_sparse(self) -> bool:
        """Whether X is CSR."""
        return arrays.is_sparse(self.x)

    @property
    def dtype(self) -> str:
        """Of X."""
        return str(self.x.dtype.name)

    @property
    def mean_weight(self) -> float:
        """Mean weight of the rows."""
        return 1.0 if self.weights is None else float(self.weights.mean())

    @property
    def task(self) -> str:
        """``"binary"``, ``"multiclass"`` or ``"regression"``."""
        if self.classes is None:
            return "regression"
        return "binary" if len(self.classes) == 2 else "multiclass"

    @property
    def n_outputs(self) -> int:
        """Columns of a model's scores."""
        if self.classes is not None:
            return 1 if len(self.classes) == 2 else len(self.classes)
        return 1 if self.y.ndim == 1 else int(self.y.shape[1])

    def encode(self, dtype: str) -> Any:
        """Return y as the ranks want it: floats of ``dtype``, or int32 codes for three classes and more."""
        return self.y.astype(np.int32) if self.task == "multiclass" else cast_finite(self.y, dtype, "y")

    def encode_weights(self, dtype: str) -> Any:
        """Return the weights as floats of ``dtype``, or None."""
        return None if self.weights is None else cast_finite(self.weights, dtype, "sample_weight")


def check_inputs(
    x: Any,
    y: Any,
    sample_weight: Any = None,
    *,
    classifier: bool,
    classes: Any = None,
    name: str = "X",
    label: str = "y",
) -> Inputs:
    """Check the kind and the shapes of the data and encode the target.

    Parameters
    ----------
    x : array-like or sparse matrix of shape (n, features)
        Dense data or CSR (other sparse formats are converted).
    y : array-like of shape (n,) or (n, targets)
        Labels or real targets.
    sample_weight : array-like of shape (n,), optional
        Weights, not negative.
    classifier : bool
        Whether y holds labels.
    classes : array, optional
        The classes known from training; labels outside them are refused.
    name, label : str
        How the errors call x and y.

    Raises
    ------
    ValueError, TypeError
        With the value, the rule and the remedy.
    """
    x = as_matrix(x, name)
    n = int(x.shape[0])
    if y is None:
        raise ValueError(f"{label} is None, but {name} has {n} rows: pass one label or target a row")
    y = as_column(y, label, n, name)
    if classifier:
        codes, classes = encode_labels(y, classes, label)
    else:
        codes, classes = as_targets(y, label), None
    weights = None
    if sample_weight is not None:
        weights = as_weights(as_column(sample_weight, "sample_weight", n, name))
        refuse_no_weight(bool(weights.any()))
    return Inputs(x, codes, weights, classes)


def as_matrix(x: Any, name: str) -> Any:
    """Return X as a 2-d array or a CSR matrix of real numbers; raise ValueError or TypeError if it is none."""
    if type(x).__module__.split(".")[0] == "dask":
        raise TypeError(f"{name} is a Dask collection: pass {name}.compute() if it fits into this process's memory")
    if x is None or isinstance(x, str | bytes | os.PathLike):
        raise TypeError(
            f"{name} is {x!r}: pass the rows themselves, as an array, a DataFrame or a CSR matrix; if it is a file, load it"
        )
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
    if kind.kind not in "biuf":
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


def as_column(values: Any, what: str, n: int, name: str) -> Any:
    """Return y or the weights as an array of ``n`` rows; raise ValueError for another shape."""
    values = array_of_column(values)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim not in (1, 2) or (what == "sample_weight" and values.ndim != 1):
        raise ValueError(f"{what} has shape {values.shape}: must be one value a row of {name}, shape ({n},)")
    if values.shape[0] != n:
        raise ValueError(
            f"{name} has {n} rows but {what} has {values.shape[0]}: they must be the same rows in the same order"
        )
    return values


def as_targets(y: Any, name: str = "y", first: int = 0) -> Any:
    """Return real targets; raise for others, naming the row, counted from ``first``."""
    if y.dtype.kind not in "biuf":
        raise TypeError(
            f"{name} has dtype {y.dtype}, but regression needs real numbers: for labels use loss='log_loss'"
        )
    _refuse_non_finite(y, name, first)
    return y


def as_weights(weights: Any, name: str = "sample_weight", first: int = 0) -> Any:
    """Return weights; raise for what is no weight, naming the row, counted from ``first``."""
    if weights.dtype.kind not in "biuf":
        raise TypeError(f"{name} has dtype {weights.dtype}: must be real numbers")
    _refuse_non_finite(weights, name, first)
    if (weights < 0).any():
        row = int(np.flatnonzero(weights < 0)[0])
        raise ValueError(f"{name} is {weights[row]} at row {first + row}: must not be negative")
    return weights


def refuse_no_weight(any_weight: bool) -> None:
    """Raise ValueError unless some row counts."""
    if not any_weight:
        raise ValueError("sample_weight is 0 everywhere: at least one row must count")


def _refuse_non_finite(values: Any, what: str, first: int) -> None:
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(axis=1))[0])
        raise ValueError(f"{what} is {values[row]} at row {first + row}: must be finite; drop or impute such rows")


def cast_finite(values: Any, dtype: str, what: str, first: int = 0) -> Any:
    """Return the values in ``dtype``; raise ValueError for one that is too large, naming the row."""
    with np.errstate(over="ignore"):  # what is too large becomes infinite and is refused by its place
        cast = values.astype(dtype)
    if not np.isfinite(cast).all():
        row = int(np.flatnonzero(~np.isfinite(cast).reshape(len(cast), -1).all(axis=1))[0])
        raise ValueError(
            f"{what} is {values[row]} at row {first + row}, too large for {dtype}: scale it, or use dtype='float64' in the model"
        )
    return cast


def finite_block(block: Any, row_numbers: Any, name: str = "X", first: int = 0) -> None:
    """Raise for a non-finite value in a block of rows, naming its row and column.

    Parameters
    ----------
    block : (m, features) array or CSR matrix
        Rows about to be copied to the workers, in their final dtype.
    row_numbers : (m,) int array
        Their row numbers in the user's data, counted from ``first``.
    """
    values = block.data if arrays.is_sparse(block) else block
    # A sum is finite if all is, and is ten times faster than looking at each value; only overflow needs the slow look.
    with np.errstate(all="ignore"):
        if np.isfinite(values.sum(dtype=values.dtype)):
            return
    if np.isfinite(values).all():
        return
    dense: Callable[[Any], Any] = (lambda row: row.toarray()) if arrays.is_sparse(block) else np.atleast_2d
    for row, number in enumerate(row_numbers):
        bad = np.flatnonzero(~np.isfinite(dense(block[row : row + 1])[0]))
        if len(bad):
            raise ValueError(
                f"{name} is not finite at row {first + int(number)}, column {int(bad[0])} (NaN, infinite, or too large for "
                f"{values.dtype}): drop or impute such rows first (sklearn.impute.SimpleImputer)"
            )
