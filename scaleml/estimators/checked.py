"""Checks of rows by scikit-learn, whose errors are told with what was meant and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
from sklearn.utils.validation import validate_data

from scaleml.data.source import ArraySource

_REMEDIES: Final = {
    "X": "encode text first (sklearn.preprocessing.OneHotEncoder; of many different words HashingVectorizer), and convert digits with "
    "X.astype(float)",
    "y": "a regressor learns numbers: convert digits with y.astype(float); for labels use a classifier",
}
_TEXT: Final = ("could not convert string", "arrays of bytes/strings", "signature matching types")


def validated(estimator: Any, X: Any, y: Any, **rules: Any) -> tuple[Any, Any]:
    """Return X and y as scikit-learn's ``validate_data`` does; its errors name what holds text, and the remedy."""
    with told_of_text(X, y):
        x, y = validate_data(estimator, X, y, **rules)
        return x, y.astype(x.dtype) if rules.get("y_numeric") and y.dtype.kind in "USO" else y


@contextmanager
def told_of_text(X: Any, y: Any) -> Iterator[None]:
    """Have errors about text where numbers are wanted say whose text it is, and the remedy."""
    try:
        yield
    except (ValueError, TypeError) as error:
        if not any(sign in str(error) for sign in _TEXT):
            raise
        what = "X" if _has_text(X) else "y"
        raise ValueError(f"{error}. {what} holds text: {_REMEDIES[what]}") from None


def refuse_no_weight_on_a_side(train: ArraySource, held: ArraySource) -> None:
    """Raise ValueError where the rows to train on, or those held out, all weigh nothing."""
    for side, what in ((train, "to train on"), (held, "that early_stopping holds out")):
        if side.weights is not None and not side.weights.any():
            raise ValueError(
                f"Sample weights must contain at least one non-zero number: all {side.rows} rows {what} weigh nothing; pass more rows of "
                "weight, another random_state, or early_stopping=False"
            )


def _has_text(X: Any) -> bool:
    kinds = X.dtypes if hasattr(X, "dtypes") else [getattr(X, "dtype", None)]
    if kinds[0] is None:
        kinds = [np.asarray(X).dtype]
    return any(not isinstance(kind, np.dtype) or kind.kind in "OUS" for kind in kinds)
