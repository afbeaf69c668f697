"""Weights of rows and of classes, as users pass them: checked, named in errors, and scaled to mean 1."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils.validation import _check_sample_weight, _num_samples

NO_WEIGHT = "Sample weights must contain at least one non-zero number: sample_weight is 0 everywhere; at least one row must count"


def row_weights(sample_weight: Any, x: Any, *, scaled: bool = False) -> Any:
    """Return the weights of the rows of X, (n,), as floats; None for none.

    Parameters
    ----------
    sample_weight : array-like of shape (n,), number or None
    x : array or CSR matrix of n rows
    scaled : bool
        Whether to scale them to mean 1, in float64.

    Raises
    ------
    ValueError
        For weights that are no numbers, not one a row, negative, not finite or all 0.
    """
    if sample_weight is None:
        return None
    rows = _num_samples(x)
    try:
        weights = _check_sample_weight(sample_weight, x, dtype=np.float64 if scaled else None)
    except (ValueError, TypeError) as error:
        if "non-zero" in str(error):
            raise ValueError(NO_WEIGHT) from None
        raise ValueError(
            f"{error} sample_weight must be one finite number of at least 0 a row of X, {rows} of them"
        ) from None
    if (weights < 0).any():
        row = int(np.flatnonzero(weights < 0)[0])
        raise ValueError(
            f"Negative values in data passed to `sample_weight`: {weights[row]} at row {row}; a row cannot count for less than nothing: "
            "drop such rows, or set their weight to 0"
        )
    if not weights.any():
        raise ValueError(NO_WEIGHT)
    return mean_one(weights) if scaled else weights


def mean_one(weights: Any) -> Any:
    """Return weights (n,), not all 0, scaled to mean 1; also where their sum is too large, or too small, for a float."""
    weights = weights / weights.max()
    return weights * (len(weights) / weights.sum())


def of_classes(class_weight: Any, weights: Any, counts: Any) -> Any:
    """Return what the rows of each class weigh, (k,), if that can be.

    Parameters
    ----------
    class_weight : dict or "balanced"
        As the user passed it.
    weights : (k,) array
        What that means for each class.
    counts : (k,) array
        How much the rows of each class weigh together, without that.

    Raises
    ------
    ValueError
        For a weight that is negative or not finite, and where no row would count.
    """
    if not np.isfinite(weights).all() or (weights < 0).any():
        raise ValueError(
            f"class_weight={class_weight!r}: each must be a finite number of at least 0; weigh a class less, or drop its rows"
        )
    if not (weights * counts).any():
        raise ValueError(
            f"class_weight={class_weight!r} is 0 for all rows that have a weight: at least one class of y must count; weigh one more than 0"
        )
    return weights
