"""Bad columns: every column of a table that a model cannot take, found at once and named with what to do about it.

Looked for only when something is wrong already: what is right is read once, by whoever copies it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, Final

import numpy as np

from scaleml import arrays
from scaleml.arrays import Array, Matrix

REAL: Final = "biuf"
"""Kinds of dtypes that are real numbers."""
_BLOCK: Final = 1 << 20
"""Values looked at in one go."""
_SHOWN: Final = 12
"""Columns that a list names before it says how many more there are."""
_REMEDIES: Final = {
    "categories": "encode them (sklearn.preprocessing.OneHotEncoder, get_dummies of pandas or, after categorize(), dask.dataframe), or "
    "pass .cat.codes where their order means something",
    "text": "encode it (sklearn.preprocessing.OneHotEncoder; of many different words HashingVectorizer), or drop it",
    "dates": "pass numbers, such as .dt.year or the days since the first one",
    "durations": "pass numbers, such as .dt.total_seconds()",
    "complex numbers": "pass real and imaginary parts as two columns",
    "mixed values": "make them numbers (pandas.to_numeric(..., errors='coerce')), encode or drop them",
    "numbers kept as objects": "convert them, .astype('float64')",
    "values that are not numbers": "encode or drop them",
}
_VALUES: Final = {
    "missing": "fill them (sklearn.impute.SimpleImputer) or drop those rows",
    "infinite": "replace them by NaN and fill them (sklearn.impute.SimpleImputer), or drop those rows",
    "too large for {dtype}": "scale them, or use dtype='float64' in the model",
}


def refuse_kinds(kinds: Iterable[tuple[object, str]], name: str, values: Sequence[str] = ()) -> None:
    """Raise TypeError that lists columns which are no real numbers, and `values`, what else is wrong; do nothing for no kinds."""
    grouped: dict[str, list[object]] = {}
    for column, kind in kinds:
        grouped.setdefault(kind, []).append(column)
    if grouped:
        lines = [f"{kind} in {listed(columns)}: {_REMEDIES[kind]}" for kind, columns in grouped.items()]
        raise TypeError(f"{name} has columns that a model cannot take: {'; '.join([*lines, *values])}")


def kind_of(dtype: object) -> str:
    """Return what a column of this dtype holds that is no real number, in words; nothing for numbers."""
    kind = getattr(dtype, "kind", "O")
    if str(dtype) == "category":
        return "categories"
    if kind in REAL:
        return ""
    others = {"M": "dates", "m": "durations", "c": "complex numbers", "U": "text", "S": "text", "T": "text"}
    return others.get(kind, "text" if str(dtype) in ("object", "str") or str(dtype).startswith("string") else _OTHER)


_OTHER: Final = "values that are not numbers"


def kinds_of_frame(frame: Any) -> list[tuple[object, str]]:
    """Return the columns of a pandas frame that hold no real numbers, and what they hold instead."""
    found = []
    for position, (column, dtype) in enumerate(frame.dtypes.items()):
        kind = kind_of(dtype)
        if kind == "text" and str(dtype) == "object":
            present = frame.iloc[:, position].dropna()
            texts = sum(isinstance(value, str) for value in present)
            kind = "text" if texts == len(present) else "mixed values" if texts else _kind_of_objects(present)
        if kind:
            found.append((column, kind))
    return found


def _kind_of_objects(present: Any) -> str:
    return "numbers kept as objects" if all(isinstance(value, Real) for value in present) else _OTHER


def bad_values_of_frame(frame: Any) -> list[str]:
    """Return what is missing or infinite in the columns of a pandas frame that are numbers, in words."""
    numbers = [position for position, dtype in enumerate(frame.dtypes) if not kind_of(dtype)]
    if not numbers:
        return []
    part = frame.iloc[:, numbers]
    values = part.to_numpy(dtype=np.float64, na_value=np.nan)
    return _Counts.of(values, "float64").words([part.columns[position] for position in range(len(numbers))])


def not_finite(x: Matrix, dtype: str, name: str, first: int, columns: Sequence[object] | None) -> ValueError:
    """Return the error for a matrix in which something is not finite in `dtype`: the first such place, then every such column.

    Parameters
    ----------
    x : (n, features) array or CSR matrix
    dtype : str
        Of the model.
    first : int
        Number of its first row in the user's data.
    columns : sequence or None
        Names of the columns, if they have any.
    """
    counts = _Counts.of(x, dtype)
    row, column = counts.place
    label = repr(columns[column]) if columns is not None else str(column)
    message = (
        f"{name} is not finite at row {first + row}, column {label} (NaN, infinite, or too large for {np.dtype(dtype)}): drop or impute "
        "such rows first (sklearn.impute.SimpleImputer)"
    )
    if len(counts.bad) > 1 or columns is not None:
        message += ". All such columns: " + "; ".join(counts.words(columns, first))
    return ValueError(message)


def listed(columns: Sequence[object]) -> str:
    """Return names of columns as a sentence has them, and how many more there are."""
    more = f" and {len(columns) - _SHOWN} more" if len(columns) > _SHOWN else ""
    return ", ".join(repr(column) for column in columns[:_SHOWN]) + more


@dataclass
class _Counts:
    """How many values of each column are missing, infinite or too large, and in which row the first of them is."""

    dtype: str
    counts: Array
    """(3, features): missing, infinite, too large."""
    first: Array
    """(features,): row of the first; -1 for none."""
    bad: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, x: Matrix, dtype: str) -> _Counts:
        rows, columns = x.shape
        counts, first = np.zeros((3, columns), np.int64), np.full(columns, -1, np.int64)
        step = max(1, _BLOCK // max(1, columns))
        for start in range(0, rows, step):
            block = x[start : start + step]
            if arrays.is_sparse(block):
                values = block.data
                places = np.repeat(np.arange(block.shape[0]), np.diff(block.indptr)), block.indices
            else:
                values, places = np.asarray(block), None
            with np.errstate(over="ignore"):
                wrong = ~np.isfinite(values.astype(dtype, copy=False))
            if not wrong.any():
                continue
            at = np.nonzero(wrong)
            row, column = (places[0][at[0]], places[1][at[0]]) if places is not None else at
            found = values[at]
            for kind, mask in enumerate((np.isnan(found), np.isinf(found), np.isfinite(found))):
                np.add.at(counts[kind], column[mask], 1)
            fresh, where = np.unique(column, return_index=True)  # rows ascend: the first is the least
            unseen = first[fresh] < 0
            first[fresh[unseen]] = start + row[where[unseen]]
        return cls(dtype, counts, first, np.flatnonzero(counts.any(axis=0)).tolist())

    @property
    def place(self) -> tuple[int, int]:
        """Row and column of the first value that is wrong."""
        column = min(self.bad, key=lambda column: (self.first[column], column))
        return int(self.first[column]), column

    def words(self, columns: Sequence[object] | None, first: int = 0) -> list[str]:
        """Return for each of the three what columns have such values, how many, and what to do."""
        said = []
        for counts, (what, remedy) in zip(self.counts, _VALUES.items(), strict=True):
            have = [column for column in self.bad if counts[column]]
            if have:
                of = ", ".join(
                    f"{column if columns is None else repr(columns[column])} ({counts[column]}, from row {first + self.first[column]} on)"
                    for column in have[:_SHOWN]
                )
                more = f" and {len(have) - _SHOWN} more" if len(have) > _SHOWN else ""
                said.append(f"{what.format(dtype=np.dtype(self.dtype))} values in {of}{more}: {remedy}")
        return said
