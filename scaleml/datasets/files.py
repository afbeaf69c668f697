"""Data sets from files: tables with names, arrays, svmlight."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scaleml.arrays import Matrix
from scaleml.datasets.dataset import WORDS, Dataset, finish, hashed, standardised, task_of

if TYPE_CHECKING:
    import pandas as pd

TARGETS = ("target", "label", "y", "class")
ENDINGS = (".csv", ".tsv", ".parquet", ".npz", ".svmlight")


def reader(path: Path) -> Callable[[Path, str | None, int], Dataset] | None:
    """What reads a file with such an ending, or None."""
    endings = [ending.lower() for ending in path.suffixes]
    if endings and endings[-1] in (".gz", ".bz2"):
        endings.pop()
    ending = endings[-1] if endings else ""
    if ending in (".csv", ".tsv", ".parquet", ".pq"):
        return _table
    if ending == ".npz":
        return _npz
    return _svmlight if ending in (".svmlight", ".svm", ".libsvm") else None


def _npz(path: Path, target: str | None, seed: int) -> Dataset:
    with np.load(path, allow_pickle=False) as arrays:
        missing = [name for name in ("X", target or "y") if name not in arrays]
        if missing:
            held = ", ".join(arrays) or "nothing"
            raise ValueError(
                f"{path} holds {held}, but no {' and no '.join(missing)}: save it with np.savez(path, X=X, y=y)."
            )
        X, y = arrays["X"], arrays[target or "y"]
    if X.ndim < 2 or y.ndim != 1 or len(X) != len(y):
        raise ValueError(
            f"{path}: X has shape {X.shape} and y {y.shape}, but (n, columns) and (n,) are needed: reshape them."
        )
    return finish(path.name, X.reshape(len(X), -1), y, task_of(y), f"{path.name}, target {target or 'y'!r}", seed)


def _svmlight(path: Path, target: str | None, seed: int) -> Dataset:
    from sklearn.datasets import load_svmlight_file

    if target is not None:
        raise ValueError(
            f"target={target!r}, but the target of a svmlight file is the first number of each line: leave it out."
        )
    X, y = load_svmlight_file(str(path), dtype=np.float32)
    y = y.astype(np.int64) if task_of(y) == "classification" and np.all(y == np.rint(y)) else y
    return finish(path.name, X, y, task_of(y), f"{path.name}, sparse as it was found", seed)


def _table(path: Path, target: str | None, seed: int) -> Dataset:
    """A table with a header: numbers stay, words become one column a word, text is hashed."""
    frame = _read(path)
    if frame.shape[1] < 2 or not len(frame):
        raise ValueError(
            f"{path} has {len(frame)} rows and {frame.shape[1]} columns, but it needs a column to predict, another to "
            "predict it from, and rows: check its separator and header."
        )
    column = target if target is not None else _default_target(list(frame.columns))
    if column not in frame.columns:
        raise ValueError(f"{path} has no column {column!r} to predict; it has: {', '.join(map(repr, frame.columns))}.")
    empty = frame.isna().sum() + np.isinf(frame.select_dtypes("number")).sum().reindex(frame.columns, fill_value=0)
    if empty.any():
        where = ", ".join(f"{name!r} ({number})" for name, number in empty[empty > 0].items())
        raise ValueError(
            f"{path} has missing or infinite values in {where}: fill or drop them first, "
            "for instance with pandas' dropna()."
        )
    y = frame.pop(column).to_numpy()
    y = y.astype(str) if y.dtype.kind in "OT" else y
    X, notes = _encode(frame, path)
    how = "as told" if target is not None else "by its name" if str(column).lower() in TARGETS else "the last column"
    return finish(path.name, X, y, task_of(y), "; ".join([f"{path.name}, target {column!r} ({how})", *notes]), seed)


def _read(path: Path) -> pd.DataFrame:
    import csv

    import pandas as pd

    if any(ending in (".parquet", ".pq") for ending in path.suffixes):
        try:
            return pd.read_parquet(path)
        except ImportError as error:
            raise ImportError(f"Reading {path} needs pyarrow: install it with `pip install pyarrow`.") from error
    # Tab-separated text has no quoting: a sentence may begin with a quotation mark.
    tabs: dict[str, Any] = {"sep": "\t", "quoting": csv.QUOTE_NONE} if ".tsv" in path.suffixes else {}
    try:
        head = pd.read_csv(path, nrows=1, header=None, dtype=str, **tabs)
    except pd.errors.EmptyDataError:
        raise ValueError(f"{path} is empty: give a table with a row of names and one column to predict.") from None
    named = pd.to_numeric(head.iloc[0], errors="coerce").isna().any()
    frame = pd.read_csv(path, header=0 if named else None, **tabs)
    return frame if named else frame.rename(columns=str)


def _default_target(columns: list[Any]) -> Any:
    for name in TARGETS:
        for column in columns:
            if str(column).lower() == name:
                return column
    return columns[-1]


def _encode(frame: pd.DataFrame, path: Path) -> tuple[Matrix, list[str]]:
    """The columns as numbers, and what was done to them."""
    import pandas as pd
    from pandas.api import types

    numbers: list[Any] = []
    words: list[Any] = []
    texts: list[Any] = []
    for name, values in frame.items():
        if types.is_numeric_dtype(values) and not types.is_complex_dtype(values):
            numbers.append(name)
        elif (
            isinstance(values.dtype, pd.CategoricalDtype)
            or types.is_string_dtype(values)
            or types.is_object_dtype(values)
        ):
            (texts if _is_text(values) else words).append(name)
        else:
            raise ValueError(f"{path}: column {name!r} holds {values.dtype}; make numbers or words of it, or drop it.")
    for name in words:
        if frame[name].nunique() > max(100, len(frame) // 2):
            raise ValueError(
                f"{path}: column {name!r} is different in nearly every row, as names of single things are: drop it."
            )
    notes = []
    parts = [frame[numbers].to_numpy(np.float64)] if numbers else []
    if words:
        one_hot = pd.get_dummies(frame[words].astype(str), dtype=np.float32)
        parts.append(one_hot.to_numpy())
        notes.append(f"{', '.join(map(str, words))}: one column for each of {one_hot.shape[1]} values")
    if not texts:
        return np.hstack(parts), notes
    from scipy import sparse

    text = frame[texts].astype(str).agg(" ".join, axis=1)
    notes.append(f"{', '.join(map(str, texts))}: words hashed to {WORDS:,} columns")
    dense = [sparse.csr_matrix(standardised(part)) for part in parts]
    return sparse.hstack([*dense, hashed(text)], format="csr", dtype=np.float32), notes


def _is_text(values: pd.Series[Any]) -> bool:
    """Sentences rather than names of categories: mostly different, mostly of several words."""
    sample = values.astype(str).head(1000)
    return bool(sample.nunique() > 0.5 * len(sample) and sample.str.count(r"\s").median() >= 2)
