"""A data set, and how all of them are made ready: finite, standardised, shuffled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import numpy as np

from scaleml import arrays
from scaleml.arrays import Matrix
from scaleml.escaping import printable

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

WORDS = 2**18  # columns that text is hashed to


@final
@dataclass(frozen=True, repr=False)
class Dataset:
    """Rows to learn from.

    Attributes
    ----------
    name : str
        The name or the file's.
    X : (n, d) float32 array or CSR matrix
        Of images an (n, channels, height, width) uint8 array; of token numbers a dict of `tokens`, (n, words), and `lengths`, (n,).
    y : (n,) array
        Labels as they were found, or float32 values with mean 0 and standard deviation 1.
    task : str
        "classification" or "regression".
    description : str
        Where the data is from and what was done to it.
    """

    name: str
    X: Matrix | dict[str, NDArray[Any]]
    y: NDArray[Any]
    task: str
    description: str

    def __repr__(self) -> str:
        facts = f"{len(self.y):,} rows, {_described(self.X)}, {self.task}"
        return printable(f"<Dataset {self.name}: {facts}>")


def _described(X: Matrix | dict[str, NDArray[Any]]) -> str:
    if isinstance(X, dict):
        return ", ".join(f"{name} of {_described(part)}" for name, part in X.items())
    kind = "CSR" if arrays.is_sparse(X) else "dense"
    if X.ndim == 2 and X.dtype.kind == "f":
        return f"{X.shape[1]:,} columns, {kind} {X.dtype}"
    return f"shape {'x'.join(map(str, X.shape[1:])) or '1'} {X.dtype}"


def task_of(y: NDArray[Any]) -> str:
    """Few different whole numbers, or anything that is no number, are classes."""
    if y.dtype.kind not in "iuf":
        return "classification"
    different = np.unique(y)
    whole = y.dtype.kind != "f" or bool(np.all(different == np.rint(different)))
    few = len(different) <= 20 or (len(different) <= 100 and len(different) <= len(y) / 20)
    return "classification" if whole and few and len(different) <= max(2, len(y) / 2) else "regression"


def finish(name: str, X: Matrix, y: NDArray[Any], task: str, about: str, seed: int) -> Dataset:
    """Refuse what is not finite; standardise; shuffle."""
    values = X.data if arrays.is_sparse(X) else X
    if values.dtype.kind not in "iufb":
        raise ValueError(f"{name}: X holds {values.dtype}, but numbers are needed: convert it first.")
    if not np.isfinite(values).all() or (y.dtype.kind == "f" and not np.isfinite(y).all()):
        raise ValueError(
            f"{name} has missing or infinite values: fill or drop them first, for instance with numpy.isfinite()."
        )
    done = [about]
    if not arrays.is_sparse(X):
        X = standardised(X)
        done.append("standardised to mean 0 and standard deviation 1")
    if task == "regression":
        mean, deviation = float(np.mean(y)), float(np.std(y)) or 1.0
        y = ((y - mean) / deviation).astype(np.float32)
        done.append(f"so is the target, which had mean {mean:.4g} and standard deviation {deviation:.4g}")
    order = np.random.default_rng(seed).permutation(X.shape[0])
    return Dataset(name, X[order], y[order], task, "; ".join([*done, "shuffled"]) + ".")


def standardised(X: NDArray[Any]) -> NDArray[np.float32]:
    """The columns with mean 0 and standard deviation 1; constant ones become 0."""
    mean = X.mean(axis=0, dtype=np.float64)
    deviation = X.std(axis=0, dtype=np.float64)
    deviation[deviation <= 1e-7 * np.abs(mean)] = 1.0
    deviation[deviation == 0] = 1.0
    return ((X - mean) / deviation).astype(np.float32)


def hashed(text: pd.Series[Any]) -> Matrix:
    """The words of each text, hashed to columns: (n, WORDS) CSR, each row of length 1."""
    from sklearn.feature_extraction.text import HashingVectorizer

    return HashingVectorizer(n_features=WORDS, alternate_sign=False, dtype=np.float32).transform(text)
