"""Data to try strategies on, by name or from a file: what the lab, the demo and the benchmarks open.

Client side only. Everything comes shuffled, dense numbers standardised, so that stochastic gradients do well on it and
shards hold alike rows; `Dataset.description` says what was done.
"""

from __future__ import annotations

import os
from pathlib import Path

from scaleml.datasets.dataset import Dataset
from scaleml.datasets.files import ENDINGS, reader
from scaleml.datasets.named import NAMES, named
from scaleml.datasets.sequences import padded

__all__ = ["NAMES", "Dataset", "load", "padded"]


def load(name_or_path: str | os.PathLike[str], target: str | None = None, seed: int = 0) -> Dataset:
    """Load a data set by name, or from a file.

    Parameters
    ----------
    name_or_path : str or path
        `digits`, `breast_cancer`, `wine`, `diabetes`: scikit-learn ships them. `generated`: 200,000 rows of 200 columns
        made on the spot, `generated:400000x200` for another size. `polarity` (text) and `cifar10` (images): from the
        folder that the environment variable SCALEML_DATA names. In their own shape, for models that take it:
        `digit_images`, `docstrings` (sentences of installed packages as token numbers), and from that folder
        `cifar10_images` and `polarity_tokens`. Else a file: .csv, .tsv or .parquet with column names, .npz with arrays
        `X` and `y`, .svmlight.
    target : str, optional
        The column to predict. By default the one called target, label, y or class, else the last.
    seed : int, default 0
        Shuffles the rows; makes `generated`.

    Returns
    -------
    Dataset

    Raises
    ------
    ValueError
        For an unknown name, a missing value or column, and columns that are neither numbers, words nor text.
    FileNotFoundError
        If there is no such file, or SCALEML_DATA is not set.

    Examples
    --------
    >>> digits = load("digits")
    >>> digits
    <Dataset digits: 1,797 rows, 64 columns, dense float32, classification>
    >>> load("generated:1000x8").X.shape
    (1000, 8)
    """
    text = os.fspath(name_or_path)
    name = text.partition(":")[0]
    if target is not None and name in NAMES:
        raise ValueError(f"target={target!r} names a column of a file, but {text!r} has only one target: leave it out.")
    if name in NAMES and (text == name or name == "generated"):
        return named(text, seed)
    path = Path(text).expanduser()
    read = reader(path)
    if read is None and not path.exists():
        raise ValueError(f"{text!r} is no data set: use {', '.join(NAMES)}, or a file ({', '.join(ENDINGS)}).")
    if read is None:
        raise ValueError(f"{path} is of no kind that can be read: save it as one of {', '.join(ENDINGS)}.")
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}; the folder that relative paths start from is {Path.cwd()}.")
    return read(path, target, seed)
