"""Scores of Dask collections: computed where the blocks are, with the refusals and the values of scikit-learn's own metrics.

Of labels each block tells which were taken for which, and what they weigh together; scikit-learn's accuracy of that is that of the rows.
Of numbers it tells sums; where scikit-learn would refuse the rows, it is shown such rows, and refuses them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from sklearn.base import is_classifier
from sklearn.metrics import accuracy_score, r2_score
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import check_is_fitted

from scaleml.data.collections import Table, partitions_of
from scaleml.data.columns import array_of_column, as_told
from scaleml.data.sealed import Parcel, sealed
from scaleml.estimators.lazy import bare_of, computed, matrix_of_block, one_row, token_of

_SHOWN = 8
"""Rows that a block shows of what will be refused anyway."""


def score(estimator: Any, X: Any, y: Any, sample_weight: Any) -> float:
    """Return the accuracy or R squared, uniformly averaged over targets; computed where X is.

    Raises
    ------
    ValueError, TypeError
        Where scikit-learn's ``score`` would: for what is missing or not finite, labels of another kind, weights that are all 0.
    """
    from dask.delayed import delayed

    from scaleml.api.lazy_prediction import sent

    check_is_fitted(estimator)
    estimator.predict(one_row(X, estimator.n_features_in_))
    (parts,) = partitions_of(Table(X, y, sample_weight))
    weights = [None] * len(parts.x) if parts.weights is None else parts.weights
    bare = bare_of(estimator)
    brought = sent(bare, token_of(bare))
    count = _taken_for if is_classifier(estimator) else _sums
    function = delayed(sealed(partial(_counted, count, parts.columns, parts.targets)), pure=True)
    found = computed(estimator, [function(brought, *part) for part in zip(parts.x, parts.y, weights, strict=True)])
    found = [part for part in found if part is not None]
    if not found:
        raise ValueError("X has no rows: at least one is needed for a score")
    if not is_classifier(estimator):
        return _r2(found)
    labels, predicted, mass = zip(*found, strict=True)
    return float(accuracy_score(_joined(labels), _joined(predicted), sample_weight=np.concatenate(mass)))


# What blocks tell.


def _counted(count: Any, columns: Any, targets: Any, sent: Parcel, x: Any, y: Any, weights: Any) -> Any:
    """Return what a block tells; None for no rows."""
    if not x.shape[0] and not y.shape[0]:
        return None
    return count(sent.open(), as_told(x, columns, "a partition of X"), as_told(y, targets, "a partition of y"), weights)


def _taken_for(bare: Any, x: Any, y: Any, weights: Any) -> Any:
    """Return labels of a block, what they were taken for, and what these rows weigh together."""
    x = matrix_of_block(x)
    y, mass = _column(y, x), _mass(weights, x)
    found = np.asarray(bare.predict(x))
    if y.ndim != found.ndim or not np.isfinite(mass).all() or _is_refused(y):
        bad = np.flatnonzero(~np.isfinite(mass) | _missing(y))[:_SHOWN]
        some = np.union1d(bad, np.arange(min(_SHOWN, len(mass))))
        return y[some], found[some], mass[some]
    if y.dtype == object or y.ndim > 1:
        places: dict[Any, int] = {}
        keys = zip(y.tolist(), found.tolist(), strict=True)
        numbers = np.array([places.setdefault(_hashable(key), len(places)) for key in keys])
    else:
        codes = [np.unique(values, return_inverse=True)[1].astype(np.int64) for values in (y, found)]
        numbers = codes[0] * (codes[1].max() + 1) + codes[1]
    _, first, numbers = np.unique(numbers, return_index=True, return_inverse=True)
    return y[first], found[first], np.bincount(numbers, mass)


def _sums(bare: Any, x: Any, y: Any, weights: Any) -> Any:
    """Return a block's rows, whether any weighs something, and sums (4, targets); or the rows that will be refused.

    The sums are the weight, the mean of y, its squares about that, and those of the residuals.
    """
    x = matrix_of_block(x)
    y, mass = _column(y, x), _mass(weights, x)
    y = y.astype(np.float64)
    y, found = y.reshape(len(y), -1), np.asarray(bare.predict(x), np.float64)
    found = found.reshape(len(y), -1)
    good = np.isfinite(y).all(axis=1) & np.isfinite(mass)
    if y.shape[1] != found.shape[1] or not good.all():
        some = np.union1d(np.flatnonzero(~good)[:_SHOWN], np.arange(min(2, len(y))))
        return y[some], found[some], mass[some]
    total = mass.sum()
    mean = mass @ y / total if total else np.zeros(y.shape[1])
    sums = np.vstack([np.full(y.shape[1], total), mean, mass @ (y - mean) ** 2, mass @ (y - found) ** 2])
    return len(y), bool(mass.any()), sums


def _column(y: Any, x: Any) -> Any:
    y = array_of_column(y)
    if y.shape[0] != x.shape[0]:
        raise ValueError(
            f"a partition of X has {x.shape[0]} rows but that of y has {y.shape[0]}: they must be the same rows"
        )
    return y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y


def _mass(weights: Any, x: Any) -> Any:
    if weights is None:
        return np.ones(x.shape[0])
    values = array_of_column(weights)
    if values.ndim != 1:
        raise ValueError(f"Sample weights must be 1D array or scalar, got {values.ndim}D array: pass one weight a row")
    if values.dtype.kind not in "biufO":
        raise ValueError(f"sample_weight has dtype {values.dtype}: must be real numbers, one a row")
    return values.astype(np.float64)


def _is_refused(y: Any) -> bool:
    """Whether scikit-learn's accuracy refuses such labels, however few of them it sees."""
    if y.dtype == object:
        return bool(_missing(y).any())
    return (
        y.dtype.kind == "c"
        or (y.dtype.kind == "f" and not np.array_equal(y, np.floor(y)))
        or "output" in type_of_target(y)
    )


def _missing(y: Any) -> Any:
    wrong = (
        np.asarray(y != y)
        if y.dtype != object
        else np.frompyfunc(lambda value: value is None or value != value, 1, 1)(y).astype(bool)
    )
    if y.dtype.kind == "f":
        wrong = wrong | np.isinf(y) | (y != np.floor(y))
    return wrong.any(axis=1) if wrong.ndim > 1 else wrong


def _hashable(key: Any) -> Any:
    return tuple(tuple(part) if isinstance(part, list) else part for part in key)


# What becomes of it.


def _joined(parts: Sequence[Any]) -> Any:
    """Return the labels of all blocks; NumPy would make text of numbers beside text."""
    kinds = {"text" if part.dtype.kind in "US" else "other" for part in parts}
    return np.concatenate([part.astype(object) for part in parts] if len(kinds) > 1 else list(parts))


def _r2(parts: Sequence[Any]) -> float:
    """Return R squared from the sums of some blocks, joined by Chan's formula: no large numbers are subtracted."""
    for part in parts:
        if not isinstance(part[0], int):
            return float(r2_score(part[0], part[1], sample_weight=part[2]))  # raises
    rows = sum(part[0] for part in parts)
    if rows < 2 or not any(part[1] for part in parts):  # warns, or raises
        shown = np.arange(float(min(rows, 2)))
        return float(r2_score(shown, shown, sample_weight=None if rows < 2 else np.zeros(2)))
    total, mean, spread, residuals = parts[0][2]
    for _, _, (mass, other, squares, errors) in parts[1:]:
        both = total + mass
        shift = other - mean
        share = np.divide(mass, both, out=np.zeros_like(both), where=both != 0)
        spread = spread + squares + shift**2 * total * share
        mean = mean + shift * share
        total, residuals = both, residuals + errors
    constant = spread == 0
    each = 1 - residuals / np.where(constant, 1.0, spread)
    return float(np.where(constant, np.where(residuals == 0, 1.0, 0.0), each).mean())
