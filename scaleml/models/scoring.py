"""Scoring: from the scores of a model to classes, probabilities, and the score of all rows."""

from __future__ import annotations

from typing import Final

import numpy as np

from scaleml.arrays import Array, namespace
from scaleml.models.blocks import Workspace
from scaleml.models.losses import BinaryLog, Loss, OwnClass, Softmax
from scaleml.models.margins import LogMargin

__all__ = ["first_largest", "probabilities", "r_squared"]

_FEW: Final = 16
"""Up to so many columns are compared one after the other. ``argmax`` goes row by row and guesses which score wins, mostly wrong: of 10
classes it takes 26 ns a row, columns 13."""


def first_largest(scores: Array, work: Workspace) -> Array:
    """Return the first column that holds each row's largest score, integers of shape (n,), for `scores` (n, K).

    Examples
    --------
    >>> first_largest(np.array([[1.0, 3.0, 2.0], [5.0, 0.0, 5.0]]), Workspace(np, "float64")).tolist()
    [1, 0]
    """
    rows, columns = scores.shape
    if work.xp is not np or not 1 < columns <= _FEW:
        return scores.argmax(axis=1)
    largest = work.rows("largest", rows, dtype=scores.dtype)
    more, found = (work.rows(role, rows, dtype=np.int8) for role in ("larger", "first largest"))
    np.copyto(largest, scores[:, 0])
    found.fill(0)
    for column in range(1, columns):
        np.greater(scores[:, column], largest, out=more.view(np.bool_))
        np.maximum(scores[:, column], largest, out=largest)
        np.multiply(more, column, out=more)
        np.maximum(found, more, out=found)
    return found


def probabilities(loss: Loss, scores: Array, *, several_labels: bool) -> Array:
    """Return probabilities of shape (n, n_classes), or of each label where a row may have several; uses up ``scores``.

    Raises
    ------
    ValueError
        The loss is not ``"log_loss"``.
    """
    xp = namespace(scores)
    own = loss.loss if isinstance(loss, OwnClass) else loss
    if isinstance(own, BinaryLog):
        scores *= 0.5
        second = 0.5 * xp.tanh(scores) + 0.5
        return second if several_labels else xp.stack([1 - second, second], axis=1)
    if isinstance(own, Softmax):
        scores -= scores.max(axis=1, keepdims=True)
        xp.exp(scores, out=scores)
        scores /= scores.sum(axis=1, keepdims=True)
        return scores
    if isinstance(own, LogMargin):
        scores *= 0.5
        each = 0.5 * xp.tanh(scores) + 0.5
        each /= each.sum(axis=1, keepdims=True)
        return each
    name = type(own).__name__
    raise ValueError(f"the loss {name} gives scores, not probabilities: only 'log_loss' does; train with it.")


def r_squared(residuals: Array, y: Array, y_squared: Array, weight: float) -> float:
    """Return the mean of the targets' R squared from sums over the rows: squared residuals, y and squared y, each (K,).

    As scikit-learn's ``r2_score``: a target that is constant counts 1 if it is met, else 0.

    Examples
    --------
    >>> r_squared(np.array([1.0]), np.array([0.0]), np.array([4.0]), 2.0)
    0.75
    """
    spread = y_squared - y * y / weight
    constant = spread <= 0
    scores = np.where(constant, residuals == 0, 1 - residuals / np.where(constant, 1, spread))
    return float(scores.mean())
