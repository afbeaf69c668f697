"""Row-wise training: scikit-learn's own steps, one a row. For which data they are taken, and what is shown of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
from sklearn.base import is_classifier

from scaleml.data.collections import is_collection, refuse_no_table
from scaleml.estimators.callbacks import told_of_both_ends
from scaleml.estimators.checked import told_of_text
from scaleml.telemetry.fitting import Fitting

LITTLE: Final = 2_000_000
"""Work an epoch up to which scikit-learn's steps of single rows are the quicker ones: about 5 ms of one core.

Measured in this process, defaults, one core: 10,000 rows of 50 columns and two classes take scikit-learn 19 to 265 ms a fit, steps of
batches 43 to 178 ms; 1,000 rows of 20 columns 2 to 8 ms and 43 to 94 ms; 50,000 rows of 100 columns 0.2 to 2.7 s and 0.1 to 0.4 s.
"""
LITTLE_OF_PERCEPTRONS: Final = 50 * LITTLE
"""The same for the perceptron's loss, whose minimum is at 0: what it learns is how its steps of single rows err on the way."""
_A_ROW: Final = 40
"""What a row costs beside its values, in values."""
_LEARNT: Final = (
    *("coef_", "intercept_", "_standard_coef", "_standard_intercept"),
    *("_average_coef", "_average_intercept"),
)


class Rowwise:
    """A linear estimator that leaves little data to scikit-learn's own code, its base class."""

    _end: Any = None
    """Where the ranks' own steps ended."""
    _columns: Any = None

    def _is_left_to_scikit_learn(self: Any, X: Any, y: Any, classes: Any = None) -> bool:
        """Whether scikit-learn's own code does it: it takes single rows, which little data and passive-aggressive steps need.

        Not where something is asked for that it lacks.
        """
        refuse_no_table(X, "X")
        if self.strategy != "auto" or self.optimizer is not None or is_collection(X):
            return False
        if self.learning_rate in ("pa1", "pa2"):
            return True
        if self.batch_size != "auto" or getattr(self, "_skl_callbacks", None):
            return False
        most = LITTLE_OF_PERCEPTRONS if self.loss == "perceptron" else LITTLE
        return is_little(X, y if is_classifier(self) else None, classes, most)

    @contextmanager
    def _left_to_scikit_learn(self: Any, X: Any, y: Any, epochs: int) -> Iterator[None]:
        """Have scikit-learn's own code take over for as long as the block lasts.

        How it goes is shown when it is over, for it is short, and as all other fits are: scikit-learn's own lines are not.
        """
        self._end = self._columns = None
        kind = np.dtype(_kind(X))
        for name in _LEARNT:  # it takes over coefficients in the dtype of X only
            value = getattr(self, name, None)
            if value is not None and value.dtype != kind:
                setattr(self, name, value.astype(kind))
        if not self.verbose:
            with told_of_text(X, y), told_of_both_ends(self):
                yield
            return
        self._validate_params()
        verbose = int(self.verbose)
        with told_of_both_ends(self), Fitting(type(self).__name__, epochs, verbose) as display:
            self.verbose = 0
            try:
                yield
            finally:
                self.verbose = verbose
            display.on_epoch(self._loss_at(X, y), number=int(self.n_iter_))


def is_little(X: Any, y: Any, classes: Any = None, most: float | None = None) -> bool:
    """Return whether training data is so little that scikit-learn's steps are the quicker ones.

    Parameters
    ----------
    X : array-like or CSR matrix of shape (n_samples, n_features)
        Not yet checked: what is no such thing is little, and scikit-learn says what is wrong with it.
    y : array-like of shape (n_samples,) or None
        Labels, which are counted; None for numbers.
    classes : array, optional
        The labels, where they are known.
    most : float, optional
        Work that is little; ``LITTLE`` by default.
    """
    most = LITTLE if most is None else most
    try:
        shape = X.shape if hasattr(X, "shape") else np.asarray(X).shape
    except ValueError:
        return True
    if len(shape) != 2:
        return True
    stored = getattr(X, "nnz", shape[0] * shape[1])
    work = stored + shape[0] * _A_ROW
    if work > most or y is None:
        return bool(work <= most)
    try:
        count = len(np.unique(np.asarray(y)) if classes is None else classes)
    except TypeError:  # labels that cannot be compared
        return True
    return bool(work * (1 if count <= 2 else count) <= most)


def _kind(X: Any) -> Any:
    """Return the dtype that scikit-learn trains X in, which may not have been checked yet."""
    kinds = list(X.dtypes) if hasattr(X, "dtypes") else [getattr(X, "dtype", None)]
    return np.float32 if all(str(kind).lower() == "float32" for kind in kinds) else np.float64
