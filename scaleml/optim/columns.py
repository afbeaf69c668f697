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
    (3, [3.0], [11.667])
    """

    def __init__(self, features: int) -> None:
        self.rows = 0
        self.means = np.zeros(features)
        self.squares = np.zeros(features)

    def add(self, x: Matrix) -> Columns:
        """Take in the rows of ``x`` (n, F), dense or CSR; return self."""
        n = x.shape[0]
        if is_sparse(x):
            values = x.data.astype(np.float64)
            means = np.bincount(x.indices, values, x.shape[1]) / n
            squares = np.bincount(x.indices, values * values, x.shape[1]) / n
        else:
            means = x.mean(axis=0, dtype=np.float64)
            squares = np.mean((x - means) ** 2, axis=0) + means * means
        self.rows += n
        share = n / self.rows
        self.means += (means - self.means) * share
        self.squares += (squares - self.squares) * share
        return self

    def seen_from(self, intercept: bool, dtype: np.dtype[Any]) -> tuple[Array, Array]:
        """Return the point to see the columns from, and their second moments about it.

        That is their mean, once enough rows are known: of one row nothing would be left.
        """
        if not intercept or self.rows < _ENOUGH:
            return np.zeros(len(self.means)), self.squares
        # A column that is nearly constant must not magnify the rounding of the gradient.
        least = 1e-5 if dtype.itemsize < 8 else 1e-10
        return self.means, np.maximum(self.squares - self.means**2, least * self.squares)
