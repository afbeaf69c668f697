"""Lazy predictions and scores of Dask collections by a fitted estimator: scikit-learn's own, block by block."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import numpy as np
from sklearn.base import is_classifier
from sklearn.utils.validation import check_is_fitted

from scaleml.data.collections import Table, is_bag, is_collection, is_frame, partitions_of, refuse_no_table
from scaleml.data.columns import array_of_column, as_told, matrix_of_frame, refuse_pieces
from scaleml.estimators.blockwise import can_label, labels

_NOT_NEEDED: Final = (
    *("_end", "_columns", "_client", "_skl_callbacks", "feature_names_in_", "loss_curve_", "validation_scores_"),
    *("_standard_coef", "_standard_intercept", "_average_coef", "_average_intercept", "_loss_function_"),
    *("_coef_grads", "_intercept_grads", "_optimizer", "_random_state", "_no_improvement_count"),
)
_SETTINGS: Final = ("strategy", "workers", "optimizer", "batch_size", "random_state", "verbose", "n_jobs", "warm_start")
"""Of training alone: what is predicted does not depend on them."""


def by_blocks(estimator: Any, method: str, X: Any) -> Any:
    """Return a Dask array of what a method gives for the rows of X, a Dask array or dataframe, in X's chunks.

    The columns' number and names are checked at once, the values when they are computed.

    Raises
    ------
    ValueError, TypeError
        For columns other than those of the training data, as far as they are known.
    """
    from scaleml.api.lazy_prediction import blocks

    check_is_fitted(estimator)
    meta = getattr(estimator, method)(_one_row(X, estimator.n_features_in_))[:0]
    bare = copy.deepcopy(_bare(estimator))  # what the estimator learns from now on is not in it
    return blocks(X, _apply, (method, meta), bare, _token(bare), meta)


def score(estimator: Any, X: Any, y: Any, sample_weight: Any) -> float:
    """Return the accuracy or R squared, uniformly averaged over targets; computed where X is."""
    from scaleml.api.lazy_prediction import sent

    check_is_fitted(estimator)
    estimator.predict(_one_row(X, estimator.n_features_in_))
    (parts,) = partitions_of(Table(X, y, sample_weight))
    weights = [None] * len(parts.x) if parts.weights is None else parts.weights
    bare = _bare(estimator)
    brought = sent(bare, _token(bare))
    from dask.delayed import delayed

    count = _right if is_classifier(estimator) else _residuals
    function = delayed(partial(_counted, count, parts.columns, parts.targets), pure=True)
    found = _computed(estimator, [function(brought, *part) for part in zip(parts.x, parts.y, weights, strict=True)])
    found = [part for part in found if part is not None]
    if not found:
        raise ValueError("X has no rows: at least one is needed for a score")
    if is_classifier(estimator):
        right, total = np.sum(found, axis=0)
        return float(right / total)
    return _r2(found)


def local(estimator: Any, *values: Any) -> list[Any]:
    """Return y and the weights in this process: those that are Dask collections are fetched."""
    for value, what in zip(values, ("y", "sample_weight"), strict=False):
        refuse_pieces(value, what)
        if is_bag(value):
            refuse_no_table(value, what)
    lazy = [value for value in values if is_collection(value)]
    found = iter(_computed(estimator, lazy)) if lazy else iter(())
    return [next(found) if is_collection(value) else value for value in values]


def _computed(estimator: Any, values: Sequence[Any]) -> Sequence[Any]:
    if estimator.client is not None:
        return list(estimator.client.gather(estimator.client.compute(list(values))))
    from dask.base import compute

    return list(compute(*values, traverse=False))


def _one_row(X: Any, features: int) -> Any:
    """Return a row of zeros as X has them, by what is known of it: names, number and dtype of the columns."""
    from scaleml.api.lazy_prediction import check_table

    check_table(X)
    if is_frame(X):
        import pandas as pd

        dtype = matrix_of_frame(X._meta_nonempty, "X").dtype
        return pd.DataFrame(np.zeros((1, len(X.columns)), dtype), columns=list(X.columns))
    width = X.shape[1]
    return np.zeros((1, features if np.isnan(width) else int(width)), X.dtype)


def _bare(estimator: Any) -> Any:
    """Return what predicts, without the rest: names were checked already, and blocks come without them."""
    bare = copy.copy(estimator)
    for name in _NOT_NEEDED:
        vars(bare).pop(name, None)
    for name in _SETTINGS:
        if name in vars(bare):
            setattr(bare, name, None)
    return bare


def _token(bare: Any) -> str:
    """Return a name for all that decides what is predicted."""
    from dask.base import tokenize

    return str(tokenize(type(bare).__name__, sorted(vars(bare).items(), key=lambda item: item[0])))


def _matrix(block: Any) -> Any:
    return matrix_of_frame(block, "X") if hasattr(block, "iloc") else block


def _apply(block: Any, method: str, meta: Any, bare: Any) -> Any:
    x = _matrix(block)
    function = partial(labels, bare) if method == "predict" and can_label(bare, x) else getattr(bare, method)
    return function(x).astype(meta.dtype, copy=False)


def _counted(count: Any, columns: Any, targets: Any, bare: Any, x: Any, y: Any, weights: Any) -> Any:
    if not x.shape[0] and not y.shape[0]:
        return None
    return count(bare, as_told(x, columns, "a partition of X"), as_told(y, targets, "a partition of y"), weights)


def _right(bare: Any, x: Any, y: Any, weights: Any) -> Any:
    """Return the weight of the right predictions and of all."""
    x = _matrix(x)
    same: Any = np.asarray(bare.predict(x) == _column(y, x))
    right: Any = (same.all(axis=1) if same.ndim > 1 else same).astype(np.float64)
    mass = np.ones(len(right)) if weights is None else array_of_column(weights)
    return np.array([mass @ right, mass.sum()])


def _residuals(bare: Any, x: Any, y: Any, weights: Any) -> Any:
    """Return, for the rows of a block, the weight, the mean of y, its squares about that, and those of the residuals."""
    x = _matrix(x)
    y = _column(y, x).astype(np.float64)
    y = y.reshape(len(y), -1)
    errors = y - bare.predict(x).reshape(y.shape)
    mass = np.ones(len(y)) if weights is None else np.asarray(array_of_column(weights), np.float64)
    total = mass.sum()
    mean = mass @ y / total if total else np.zeros(y.shape[1])
    return np.vstack([np.full(y.shape[1], total), mean, mass @ (y - mean) ** 2, mass @ errors**2])


def _column(y: Any, x: Any) -> Any:
    y = array_of_column(y)
    if y.shape[0] != x.shape[0]:
        raise ValueError(
            f"a partition of X has {x.shape[0]} rows but that of y has {y.shape[0]}: they must be the same rows"
        )
    return y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y


def _r2(parts: Sequence[Any]) -> float:
    """Return R squared from the sums of some blocks, joined by Chan's formula: no large numbers are subtracted."""
    total, mean, spread, residuals = parts[0]
    for mass, other, squares, errors in parts[1:]:
        both = total + mass
        shift = other - mean
        share = np.divide(mass, both, out=np.zeros_like(both), where=both > 0)
        spread = spread + squares + shift**2 * total * share
        mean = mean + shift * share
        total, residuals = both, residuals + errors
    constant = spread <= 0
    each = 1 - residuals / np.where(constant, 1.0, spread)
    return float(np.where(constant, np.where(residuals == 0, 1.0, 0.0), each).mean())
