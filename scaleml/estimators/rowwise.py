"""scikit-learn's own steps, one a row: for which data they are taken, and what is shown of them."""

from __future__ import annotations

import re
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from itertools import zip_longest
from typing import Any, Final, final

import numpy as np
from sklearn.base import is_classifier

from scaleml.data.collections import is_collection
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
_WORDS: Final = ("-- Epoch", "Norm:", "Total training time:", "Convergence after", "[Parallel(")
_FACTS: Final = re.compile(r"Avg\. loss: ([^,\s]+)(?:.*Validation score: (\S+))?")


class Rowwise:
    """A linear estimator that leaves little data to scikit-learn's own code, its base class."""

    _end: Any = None
    """Where the engine's own steps ended."""
    _columns: Any = None

    def _is_left_to_scikit_learn(self: Any, X: Any, y: Any, classes: Any = None) -> bool:
        """Whether scikit-learn's own code does it: it takes single rows, which little data and passive-aggressive steps need.

        Not where something is asked for that it lacks.
        """
        if self.strategy != "auto" or self.optimizer is not None or is_collection(X):
            return False
        if self.learning_rate in ("pa1", "pa2"):
            return True
        if self.batch_size != "auto" or getattr(self, "_skl_callbacks", None):
            return False
        most = LITTLE_OF_PERCEPTRONS if self.loss == "perceptron" else LITTLE
        return is_little(X, y if is_classifier(self) else None, classes, most)

    @contextmanager
    def _left_to_scikit_learn(self: Any, X: Any, epochs: int) -> Iterator[None]:
        """Have scikit-learn's own code take over for as long as the block lasts."""
        self._end = self._columns = None
        kind = np.dtype(_kind(X))
        for name in _LEARNT:  # it takes over coefficients in the dtype of X only
            value = getattr(self, name, None)
            if value is not None and value.dtype != kind:
                setattr(self, name, value.astype(kind))
        with shown(self, epochs):
            yield


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


@contextmanager
def shown(estimator: Any, epochs: int) -> Iterator[None]:
    """Show a fit of scikit-learn's as all others are shown, instead of its own lines: at its end, for it is short."""
    if not estimator.verbose:
        yield
        return
    with Fitting(type(estimator).__name__, epochs, int(estimator.verbose)) as display:
        heard = Heard(sys.stdout)
        with redirect_stdout(heard), redirect_stderr(Heard(sys.stderr)):
            yield
        for loss, score in heard.epochs():
            display.on_epoch(loss, score)


@final
class Heard:
    """Standard output, or errors, that keeps what scikit-learn says of its epochs and passes all else on.

    Parameters
    ----------
    out : file
    """

    def __init__(self, out: Any) -> None:
        self._out = out
        self._lines: dict[int, list[str]] = defaultdict(list)  # of each thread, for each may learn another class
        self._kept: set[int] = set()

    def write(self, text: str) -> int:
        """Keep a line of scikit-learn's, with the line's end that follows; pass anything else on."""
        thread = threading.get_ident()
        if text.startswith(_WORDS):
            self._lines[thread].append(text)
            self._kept.add(thread)
            return len(text)
        if text and thread in self._kept:
            self._kept.discard(thread)
            if text == "\n":
                return 1
        return int(self._out.write(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._out, name)

    def epochs(self) -> list[tuple[float, float]]:
        """Return the loss of each epoch, and the score of its held-out rows or NaN: means over the classes that were learnt in it."""
        problems: list[list[tuple[float, float]]] = []
        for lines in self._lines.values():
            for line in lines:
                if line.startswith("-- Epoch 1") and line.split()[-1] == "1":
                    problems.append([])
                found = _FACTS.search(line)
                if found and problems:
                    problems[-1].append((float(found[1]), float(found[2] or "nan")))
        nothing = (float("nan"), float("nan"))
        return [
            _mean([pair for pair in each if pair is not nothing]) for each in zip_longest(*problems, fillvalue=nothing)
        ]


def _mean(pairs: list[tuple[float, float]]) -> tuple[float, float]:
    losses, scores = zip(*pairs, strict=True)
    return sum(losses) / len(losses), sum(scores) / len(scores)
