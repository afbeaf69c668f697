"""Labels of any sortable kind as codes: in one go, or partition by partition with the classes merged afterwards."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scaleml.arrays import Array
from scaleml.data.columns import is_missing


def check_labels(y: Array, name: str = "y", first: int = 0) -> None:
    """Raise for labels that cannot be classes: missing, real numbers, several a row.

    Parameters
    ----------
    y : (n,) array
        Labels.
    name : str
        How the errors call them.
    first : int
        Number of the first row.
    """
    if y.ndim != 1:
        raise ValueError(
            f"{name} has shape {y.shape}: labels must be one a row; for one-hot labels pass y.argmax(axis=1)"
        )
    _refuse_missing(y, name, first)
    if y.dtype.kind == "f" and not np.array_equal(y, np.floor(y)):
        row = int(np.flatnonzero(y != np.floor(y))[0])
        raise ValueError(
            f"{name} holds the real number {y[row]} (row {first + row}), but this model's loss is for classes: "
            "use loss='squared_error' for regression (of modules and functions 'mse'), or make classes of y"
        )


def check_indicators(y: Array, name: str = "y", first: int = 0) -> None:
    """Raise ValueError unless y (n, k) has a column of 0 and 1 for each label; see `check_labels`."""
    wrong = ~((y == 0) | (y == 1))
    if wrong.any():
        row, column = np.argwhere(wrong)[0].tolist()
        raise ValueError(
            f"{name} holds {y[row, column]} (row {first + row}, column {column}): several columns are several labels a row, all 0 or "
            "1; make a column of 0 and 1 of each label, or fit one classifier a column"
        )


def refuse_unordered(y: object, name: str = "y") -> None:
    """Raise for labels of Python objects that are missing, or text and others side by side; any other y passes.

    Examples
    --------
    >>> refuse_unordered(np.array(["ant", 7], object))
    Traceback (most recent call last):
    TypeError: the labels are of types int and str, which have no common order: make them one type, such as y.astype(str)
    """
    if str(getattr(y, "dtype", None)) != "object" or getattr(y, "ndim", 1) != 1:
        return
    labels = np.asarray(y)
    _refuse_missing(labels, name, 0)
    texts = sum(isinstance(label, str) for label in labels)
    if 0 < texts < len(labels):
        raise _no_order([labels])


def as_text(y: Array) -> Array:
    """Return labels that are all text as NumPy's own text, as scikit-learn's ``classes_`` are; others as they are.

    Examples
    --------
    >>> as_text(np.array(["ant", "bee"], object)).dtype
    dtype('<U3')
    """
    return y.astype(str) if y.dtype == object and all(isinstance(label, str) for label in y) else y


def encode_labels(y: Array, known: Array | None, name: str = "y") -> tuple[Array, Array]:
    """Return the labels' codes and their sorted classes, at least two; ``known`` gives the classes, if they are."""
    check_labels(y, name)
    try:
        classes = np.unique(y) if known is None else known
        codes = np.searchsorted(classes, y)
    except TypeError:
        raise _no_order([y, () if known is None else known]) from None
    refuse_one_class(classes)
    outside = (codes == len(classes)) | (classes[np.minimum(codes, len(classes) - 1)] != y)
    if outside.any():
        row = int(np.flatnonzero(outside)[0])
        raise ValueError(f"{name} holds {plain(y[row])!r} (row {row}), which is none of {_listed(classes)}")
    return codes, classes


def local_codes(y: Array, name: str, first: int) -> tuple[Array, Array]:
    """Return a partition's labels as int32 codes into its own sorted classes, and these."""
    check_labels(y, name, first)
    try:
        classes, codes = np.unique(y, return_inverse=True)
    except TypeError:
        raise _no_order([y]) from None
    return codes.astype(np.int32), classes


def merge_classes(parts: Sequence[Array]) -> Array:
    """Return the sorted classes of all partitions.

    Raises
    ------
    TypeError
        When they have no common order.
    ValueError
        When there is one only.
    """
    texts = [part.dtype.kind in "USO" for part in parts]
    if any(texts) and not all(texts):
        raise _no_order(parts)
    try:
        classes = np.unique(np.concatenate(list(parts)))
    except TypeError:
        raise _no_order(parts) from None
    refuse_one_class(classes)
    return classes


def places_of(labels: Array, classes: Array, name: str) -> Array:
    """Return where a partition's ``labels`` stand among ``classes``.

    Raises
    ------
    ValueError, TypeError
        For a label that is none of them.
    """
    try:
        places = np.searchsorted(classes, labels)
    except TypeError:
        raise _no_order([labels, classes]) from None
    outside = (places == len(classes)) | (classes[np.minimum(places, len(classes) - 1)] != labels)
    if np.any(outside):
        label = labels[int(np.flatnonzero(outside)[0])]
        raise ValueError(f"{name} holds {plain(label)!r}, which is none of {_listed(classes)}")
    return places


def refuse_one_class(classes: Array) -> None:
    """Raise ValueError unless there are at least two classes."""
    if len(classes) < 2:
        raise ValueError(
            f"y holds one class only, {plain(classes[0])!r}: a classifier needs at least two; check how y was made or split"
        )


def plain(label: object) -> object:
    """Return a label as Python writes it: 6, not ``np.int64(6)``."""
    return label.item() if isinstance(label, np.generic) else label


def _listed(classes: Array) -> str:
    more = f" and {len(classes) - 10} more" if len(classes) > 10 else ""
    return f"the training classes {[plain(label) for label in classes[:10]]}{more}"


def _no_order(parts: Sequence[Array | tuple[()]]) -> TypeError:
    kinds = sorted({type(label).__name__ for labels in parts for label in labels})
    return TypeError(
        f"the labels are of types {' and '.join(kinds)}, which have no common order: make them one type, such as y.astype(str)"
    )


def _refuse_missing(y: Array, name: str, first: int) -> None:
    missing = (
        (y != y)
        if y.dtype.kind in "fc"
        else np.asarray([is_missing(value) for value in y], bool)
        if y.dtype == object
        else None
    )
    if missing is not None and missing.any():
        raise ValueError(
            f"{name} is missing at row {first + int(np.flatnonzero(missing)[0])} ({int(missing.sum())} of the {len(y)} rows from row "
            f"{first} on are): drop those rows"
        )
