"""What pandas holds, as plain NumPy: nullable numbers are converted, categories and text are refused with the remedy."""

from __future__ import annotations

from typing import Any

import numpy as np

REAL = "biuf"


def refuse_columns(kinds: Any, name: str) -> None:
    """Raise TypeError for columns that are no real numbers.

    Parameters
    ----------
    kinds : iterable of (column, dtype)
        Of a pandas or a Dask dataframe.
    name : str
        How the error calls the data.
    """
    kinds = list(kinds)
    categories = [str(column) for column, kind in kinds if str(kind) == "category"]
    if categories:
        raise TypeError(
            f"{name} has columns of categories: {_some(categories)}; a model needs numbers: encode them with get_dummies of "
            f"pandas or dask.dataframe (there after {name}.categorize()) or sklearn.preprocessing.OneHotEncoder, or pass "
            f"{name}[column].cat.codes where the order of the categories means something"
        )
    bad = [str(column) for column, kind in kinds if getattr(kind, "kind", "O") not in REAL]
    if bad:
        raise TypeError(
            f"{name} has columns that are not numbers: {_some(bad)}; "
            "encode or drop them first (pandas.get_dummies, sklearn.preprocessing.OneHotEncoder)"
        )


def matrix_of_frame(frame: Any, name: str) -> Any:
    """Return a pandas frame as a 2-d array of real numbers; what is missing becomes NaN.

    Raises
    ------
    TypeError
        For columns that are no numbers, by name, with the remedy.
    """
    if frame.ndim == 2:
        refuse_columns(frame.dtypes.items(), name)
        if any(not isinstance(kind, np.dtype) for kind in frame.dtypes):
            return frame.to_numpy(dtype=np.float64, na_value=np.nan)  # pandas' own numbers, possibly with gaps
    values = frame.to_numpy()
    if values.dtype == object and frame.ndim == 2:  # numbers and booleans side by side
        values = frame.to_numpy(dtype=np.float64, na_value=np.nan)
    return values


def array_of_column(values: Any) -> Any:
    """Return y or weights as an array; pandas' nullable numbers become NumPy's, what is missing NaN."""
    kind = getattr(values, "dtype", None)
    if hasattr(values, "iloc") and getattr(values, "ndim", 1) == 2 and values.shape[1] == 1:
        values = values.iloc[:, 0]
        kind = values.dtype
    if kind is not None and hasattr(kind, "na_value") and getattr(kind, "kind", "O") in REAL:
        if values.isna().any():
            return values.to_numpy(dtype=np.float64, na_value=np.nan)
        return values.to_numpy(dtype=kind.numpy_dtype)
    return np.asarray(values)


def _some(columns: list[str]) -> str:
    return ", ".join(columns[:5]) + (" ..." if len(columns) > 5 else "")
