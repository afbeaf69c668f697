"""Moments of the columns of X, gathered part by part."""

from __future__ import annotations

from typing import Any, Final, final

import numpy as np

from scaleml.arrays import Array, Matrix, is_sparse

__all__ = ["Columns"]

_ENOUGH: Final = 16
"""Rows from which on columns are seen from their means."""


@final
class Columns:
    """First and second moments of the columns of rows that come in parts.

    Parameters
    ----------
    features : int
        F.

    Examples
    --------
    >>> import numpy as np
    >>> columns = Columns(1).add(np.array([[1.0], [3.0]])).add(np.array([[5.0]]))
    >>> columns.rows, columns.means.tolist(), columns.squares.round(3).tolist()
    (3.0, [3.0], [11.667])
    """

    def __init__(self, features: int) -> None:
        self.rows = self._effective = 0.0
        self.means = np.zeros(features)
        self.squares = np.zeros(features)

    def add(self, x: Matrix, weights: Array | None = None) -> Columns:
        """Take in the rows of ``x`` (n, F), dense or CSR, each as many times as its weight says; return self."""
        mass = effective = float(x.shape[0])
        shares = np.full(x.shape[0], 1 / mass)
        if weights is not None:
            mass = float(weights.sum())
            shares = weights / mass
            effective = 1.0 / float(shares @ shares)
        if is_sparse(x):
            values = x.data.astype(np.float64)
            each = values * np.repeat(shares, np.diff(x.indptr))
            means = np.bincount(x.indices, each, x.shape[1])
            squares = np.bincount(x.indices, each * values, x.shape[1])
        elif weights is None:
            means = x.mean(axis=0, dtype=np.float64)
            squares = np.mean((x - means) ** 2, axis=0) + means * means
        else:
            means = shares @ x
            squares = shares @ (x - means) ** 2 + means * means
        self.rows += mass
        self._effective += effective
        share = mass / self.rows
        self.means += (means - self.means) * share
        self.squares += (squares - self.squares) * share
        return self

    def seen_from(self, intercept: bool, dtype: np.dtype[Any]) -> tuple[Array, Array]:
        """Return the point to see the columns from, and their second moments about it.

        That is their mean, once enough rows are known: of one row nothing would be left.
        """
        if not intercept or self._effective < _ENOUGH:
            return np.zeros(len(self.means)), self.squares
        # A column that is nearly constant must not magnify the rounding of the gradient.
        least = 1e-5 if dtype.itemsize < 8 else 1e-10
        return self.means, np.maximum(self.squares - self.means**2, least * self.squares)
