"""Scores from sums over the data."""

from __future__ import annotations

import numpy as np

from scaleml.arrays import Array

__all__ = ["r_squared"]


def r_squared(residuals: Array, y: Array, y_squared: Array, weight: float) -> float:
    """Return the mean of the targets' R squared from sums over the rows: squared residuals, y and squared y, each (K,).

    As scikit-learn's ``r2_score``: a target that is constant counts 1 if it is met, else 0.

    Examples
    --------
    >>> r_squared(np.array([1.0]), np.array([0.0]), np.array([4.0]), 2.0)
    0.75
    """
    spread = y_squared - y * y / weight
    constant = spread <= 0
    scores = np.where(constant, residuals == 0, 1 - residuals / np.where(constant, 1, spread))
    return float(scores.mean())
