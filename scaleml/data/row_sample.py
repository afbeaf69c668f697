"""A sample of the rows to train on: spread over all that count, and the heaviest of them, which no spread would meet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from scaleml import arrays
from scaleml.arrays import Array, Matrix, Rows

HEAVIEST: Final = 64
"""Rows that are looked at for their weight."""


@dataclass(frozen=True)
class RowSample:
    """Some rows.

    Parameters
    ----------
    x : (s, features) array or CSR matrix
    y : (s,) or (s, targets) array
    weights : (s,) array or None
        Greater than 0.
    counts : (s,) array or None
        How many of all rows that count each of these stands for; None where there are no weights.
    """

    x: Matrix
    y: Array
    weights: Array | None = None
    counts: Array | None = None


def sample_rows(x: Rows, y: Array, weights: Array | None, count: int) -> RowSample:
    """Return about ``count`` rows, evenly spread, the same ones every time: of those whose weight is not 0, and the heaviest.

    Examples
    --------
    >>> weights = np.array([0, 1.0, 0, 1, 9, 1])
    >>> found = sample_rows(np.arange(6.0)[:, None], np.arange(6), weights, 2)
    >>> found.y.tolist(), float(found.counts.sum())
    ([1, 3, 4, 5], 4.0)
    """
    n = x.shape[0]
    if weights is None:
        if n <= count:
            return RowSample(arrays.rows(x, 0, n), y)
        some = np.arange(count) * n // count
        return RowSample(x[some], y[some])
    there = np.flatnonzero(weights)
    heaviest = there[heaviest_of(weights[there])]
    others = np.setdiff1d(there, heaviest)
    spread = others[np.arange(count) * len(others) // count] if len(others) > count else others
    some = np.concatenate([spread, heaviest])
    counts = np.ones(len(some))
    counts[: len(spread)] = len(others) / max(1, len(spread))
    order = np.argsort(some)
    some, counts = some[order], counts[order]
    return RowSample(x[some], y[some], weights[some], counts)


def heaviest_of(weights: Array, most: int = HEAVIEST) -> Array:
    """Return where the largest of the weights (n,) are, at most so many."""
    if len(weights) <= most:
        return np.arange(len(weights))
    return np.argpartition(weights, len(weights) - most)[-most:]
