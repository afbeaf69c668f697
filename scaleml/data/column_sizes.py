"""Column sizes: how large the values of each column are, from a few rows of the one pass; says which ones make training diverge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

import numpy as np

from scaleml import arrays
from scaleml.arrays import Array, Matrix

_ROWS: Final = 1024
"""Rows that are looked at, in an order that is random anyway: a column's size is then known to a few percent."""
_VALUES: Final = 1 << 18
"""Values that are looked at at most, a millisecond: of wide tables fewer rows."""
_WIDE: Final = 1 << 14
"""Columns of tables that are not looked at: each partition would send so many numbers to the client."""
LARGE: Final = 10.0
"""Root mean square above which a column is in no units that a learning rate of usual size suits: standardised ones have 1."""
_APART: Final = 3.0
"""By what factor large columns must be above the others to be told from them."""
_SHOWN: Final = 5


@final
@dataclass(frozen=True)
class ColumnSizes:
    """Mean squares of the columns of X.

    Parameters
    ----------
    squares : (features,) float64 array
        Mean of the squares, of some rows.
    rows : int
        Rows that these stand for.
    """

    squares: Array
    rows: int

    @classmethod
    def of(cls, x: Matrix, order: Array) -> ColumnSizes | None:
        """Look at the first of the rows that `order` (n,) names; None for CSR, and for very many columns.

        Examples
        --------
        >>> x = np.array([[1.0, 2000.0], [-1.0, 2010.0]])
        >>> ColumnSizes.of(x, np.arange(2)).sizes.round(1).tolist()
        [1.0, 2005.0]
        """
        columns = x.shape[1]
        if arrays.is_sparse(x) or columns > _WIDE or not len(order):
            return None
        some = x[order[: max(64, min(_ROWS, _VALUES // columns))]].astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused elsewhere
            return cls((some * some).mean(axis=0), len(order))

    @classmethod
    def together(cls, parts: Sequence[ColumnSizes | None]) -> ColumnSizes | None:
        """Return those of all rows of some partitions; None where one is not known."""
        known = [part for part in parts if part is not None]
        if not known or len(known) < len(parts):
            return None
        rows = sum(part.rows for part in known)
        return cls(np.sum([part.squares * (part.rows / rows) for part in known], axis=0), rows)

    @property
    def sizes(self) -> Array:
        """Root mean square of each column, (features,)."""
        return np.sqrt(self.squares)

    def advice(self, names: Sequence[object] | None = None) -> str:
        """Return which columns are too large for training by gradients, and what to do; nothing where none is.

        Examples
        --------
        >>> found = ColumnSizes(np.array([1.0, 0.2, 2.5e9, 1.0]), rows=100)
        >>> found.advice(["age", "member", "pay", "height"])
        "column 'pay' (values of about 5e+04) is far larger than the others (about 1): scale it (sklearn.preprocessing.StandardScaler)"
        """
        sizes = self.sizes
        large = [int(column) for column in np.argsort(-sizes, kind="stable") if sizes[column] > LARGE]
        rest = np.delete(sizes, large)
        rest = rest[rest > 0]
        if not large:
            return ""
        typical = float(np.median(rest)) if len(rest) else 0.0
        if typical and sizes[large[-1]] > _APART * typical:
            one = len(large) == 1
            listed = ", ".join(
                f"{_label(column, names)} (values of about {sizes[column]:.2g})" for column in large[:_SHOWN]
            )
            more = f" and {len(large) - _SHOWN} more" if len(large) > _SHOWN else ""
            return (
                f"column{'s' * (not one)} {listed}{more} {'is' if one else 'are'} far larger than the others (about {typical:.2g}): scale "
                f"{'it' if one else 'them'} (sklearn.preprocessing.StandardScaler)"
            )
        median = float(np.median(sizes[large]))
        if len(large) * 2 < len(sizes):
            return ""
        return f"most columns of X hold values of about {median:.2g}: scale them (sklearn.preprocessing.StandardScaler)"


def _label(column: int, names: Sequence[object] | None) -> str:
    return str(column) if names is None else repr(names[column])
