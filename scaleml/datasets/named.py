"""Data sets by name: shipped with scikit-learn, made on the spot, or in the folder of SCALEML_DATA."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scaleml.datasets.dataset import WORDS, Dataset, finish, hashed
from scaleml.datasets.text import VOCABULARY, docstrings, tokens

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

SHIPPED = ("digits", "breast_cancer", "wine", "diabetes")
SHAPED = ("digit_images", "docstrings", "cifar10_images", "polarity_tokens")
NAMES = (*SHIPPED, "generated", "polarity", "cifar10", *SHAPED)

_BLOCK = 65_536
_LENGTH = 32
"""Words of a sentence that count."""


def named(text: str, seed: int) -> Dataset:
    """The data set of that name, which is one of `NAMES` or `generated:ROWSxCOLUMNS`."""
    if text in SHIPPED:
        return _shipped(text, seed)
    if text.startswith("polarity"):
        path = _from_folder(text, "polarity.tsv", "columns text and label, 0 or 1")
        return _polarity(path, seed) if text == "polarity" else _polarity_tokens(path, seed)
    if text.startswith("cifar10"):
        path = _from_folder(text, "cifar10_12k.npz", "arrays X_train, y_train, X_test, y_test")
        return _cifar10(path, seed) if text == "cifar10" else _cifar10_images(path, seed)
    if text == "docstrings":
        texts, labels, about = docstrings()
        return _tokens(text, texts, labels, about, seed)
    return _digit_images(seed) if text == "digit_images" else _generated(text, seed)


def _shipped(name: str, seed: int) -> Dataset:
    from sklearn import datasets

    found = getattr(datasets, f"load_{name}")()
    task = "regression" if name == "diabetes" else "classification"
    return finish(name, found.data, found.target, task, f"{name}, as scikit-learn ships it", seed)


def _generated(text: str, seed: int) -> Dataset:
    """Two classes from a logistic model on correlated columns; no model gets all of them right."""
    size = re.fullmatch(r"generated(?::(\d+)x(\d+))?", text)
    rows, columns = (int(size[1] or 200_000), int(size[2] or 200)) if size else (0, 0)
    if rows < 2 or columns < 1:
        raise ValueError(f"{text!r} names no size: write generated:ROWSxCOLUMNS, for instance generated:400000x200.")
    random = np.random.default_rng(seed)
    weights = random.standard_normal(columns, dtype=np.float32)
    weights *= 2.5 / np.linalg.norm(weights)
    common = random.standard_normal(columns, dtype=np.float32)
    X, y = np.empty((rows, columns), np.float32), np.empty(rows, np.int64)
    for start in range(0, rows, _BLOCK):
        part = X[start : start + _BLOCK]
        random.standard_normal(out=part, dtype=np.float32)
        luck = random.logistic(size=len(part))
        y[start : start + _BLOCK] = part @ weights + luck > 0
        # One factor shared by all columns: harder to condition than independent columns, as real data is.
        part += 0.5 * random.standard_normal((len(part), 1), dtype=np.float32) * common
        part /= np.sqrt(1 + 0.25 * common**2)
    about = f"{rows:,} rows of {columns} correlated columns, made from seed {seed}; standardised; two classes, noisy."
    return Dataset(text, X, y, "classification", about)


_REVIEWS = "sentences from film reviews, positive or negative (Pang and Lee, 2005)"


def _reviews(path: Path) -> tuple[pd.Series[Any], NDArray[Any]]:
    import csv

    import pandas as pd

    frame = pd.read_csv(path, sep="\t", quoting=csv.QUOTE_NONE)
    return frame["text"], frame["label"].to_numpy(np.int64)


def _polarity(path: Path, seed: int) -> Dataset:
    texts, labels = _reviews(path)
    about = f"{_REVIEWS}; words hashed to {WORDS:,} columns"
    return finish("polarity", hashed(texts), labels, "classification", about, seed)


def _polarity_tokens(path: Path, seed: int) -> Dataset:
    texts, labels = _reviews(path)
    return _tokens("polarity_tokens", texts.tolist(), labels, _REVIEWS, seed)


def _tokens(name: str, texts: list[str], labels: NDArray[Any], about: str, seed: int) -> Dataset:
    """Texts as rows of token numbers and their lengths."""
    order = np.random.default_rng(seed).permutation(len(texts))
    X = {key: values[order] for key, values in tokens(texts, _LENGTH).items()}
    about = (
        f"{about}; the first {_LENGTH} words of each hashed to {VOCABULARY:,} token numbers, padded with 0; shuffled."
    )
    return Dataset(name, X, labels[order], "classification", about)


def _digit_images(seed: int) -> Dataset:
    from sklearn.datasets import load_digits

    found = load_digits()
    images = (found.images * (255 / 16)).round().astype(np.uint8)[:, None]
    about = f"{len(images):,} images of 8 x 8 pixels, one channel, 0 to 255, of digits, as scikit-learn ships them"
    return _images("digit_images", images, found.target, about, seed)


def _images(name: str, images: NDArray[np.uint8], labels: NDArray[Any], about: str, seed: int) -> Dataset:
    order = np.random.default_rng(seed).permutation(len(images))
    return Dataset(name, images[order], labels[order], "classification", f"{about}; shuffled.")


def _cifar10_arrays(path: Path) -> tuple[NDArray[np.uint8], NDArray[Any]]:
    with np.load(path, allow_pickle=False) as arrays:
        images = np.concatenate([arrays["X_train"], arrays["X_test"]])
        labels = np.concatenate([arrays["y_train"], arrays["y_test"]]).astype(np.int64)
    return images, labels


def _cifar10_images(path: Path, seed: int) -> Dataset:
    images, labels = _cifar10_arrays(path)
    about = f"{len(images):,} CIFAR-10 images of 32 x 32 pixels, three channels, 0 to 255 (Krizhevsky, 2009)"
    return _images("cifar10_images", np.ascontiguousarray(images.transpose(0, 3, 1, 2)), labels, about, seed)


def _cifar10(path: Path, seed: int) -> Dataset:
    images, labels = _cifar10_arrays(path)
    X = images.reshape(len(images), -1).astype(np.float32)
    X /= 255
    order = np.random.default_rng(seed).permutation(len(X))
    about = f"{len(X):,} CIFAR-10 images of 32 x 32 pixels (Krizhevsky, 2009), flattened, scaled to 0..1; shuffled."
    return Dataset("cifar10", X[order], labels[order], "classification", about)


def _from_folder(name: str, file: str, about: str) -> Path:
    folder = os.environ.get("SCALEML_DATA")
    if not folder:
        raise FileNotFoundError(
            f"{name!r} is not shipped: put {file} ({about}) in a folder and name that by the environment variable SCALEML_DATA, "
            f"or use one of {', '.join(SHIPPED)}, generated."
        )
    path = Path(folder).expanduser() / file
    if not path.is_file():
        raise FileNotFoundError(f"SCALEML_DATA is {folder}, but there is no {file} in it: put it there for {name!r}.")
    return path
