"""Scorer: from the outputs of a module, as arrays, to decisions, probabilities and the score. The same for all frameworks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal, final

import numpy as np

from scaleml.arrays import Array, namespace, to_numpy
from scaleml.models.scoring import r_squared

__all__ = ["IGNORED", "Scorer"]

IGNORED: Final = -100
"""The class code of what counts nowhere, such as the padding of a text: PyTorch's own."""


@final
@dataclass(frozen=True)
class Scorer:
    """What the outputs of a module say.

    Parameters
    ----------
    kind : {"classes", "labels", "numbers", "nothing"}
        Outputs are a score of each class; of each label that a row may have, one of which is that of two classes; numbers; or only what
        the loss can read.
    axis : int
        Of the classes.
    link : {"softmax", "exp", "sigmoid"} or None
        Makes probabilities of scores.
    binary : bool
        Whether the target is one of two classes.
    shape : tuple of int
        Of a row's target.
    ignored : int
        The class code of what counts nowhere.

    Examples
    --------
    >>> scorer = Scorer("classes", link="softmax")
    >>> outputs, y = np.array([[2.0, 0.0], [0.0, 3.0], [1.0, 0.0]]), np.array([0, 1, 1])
    >>> scorer.decide(outputs).tolist(), scorer.summarise(scorer.sums(outputs, y, None, 1.5, 3.0))
    ([0, 1, 0], (0.5, 0.6666666666666666))
    """

    kind: Literal["classes", "labels", "numbers", "nothing"]
    axis: int = -1
    link: Literal["softmax", "exp", "sigmoid"] | None = None
    binary: bool = False
    shape: tuple[int, ...] = ()
    ignored: int = IGNORED

    @property
    def score_name(self) -> str:
        """What `summarise` gives as the score."""
        return {"numbers": "R2", "nothing": "negative loss"}.get(self.kind, "accuracy")

    @property
    def size(self) -> int:
        """Length of what `sums` returns."""
        return 3 + 3 * self._targets if self.kind == "numbers" else 4

    @property
    def _targets(self) -> int:
        """Numbers whose R squared is a mean of its own: those of a row, but all of an image are one."""
        return self.shape[0] if len(self.shape) == 1 else 1

    def decide(self, outputs: Array) -> Array:
        """Return class codes, labels of 0 and 1, or the numbers as they are, of a row's shape."""
        if self.kind == "classes":
            return outputs.argmax(axis=self.axis).astype(np.int32)
        if self.kind == "labels":
            return self._as_targets(outputs > 0).astype(np.int32)
        return self._as_targets(outputs) if self.kind == "numbers" else outputs

    def scores(self, outputs: Array) -> Array:
        """Return the scores; of two classes that of the second, (n,)."""
        if self.binary and self.kind == "classes":
            return outputs[:, 1] - outputs[:, 0]
        return outputs if self.kind == "classes" else self._as_targets(outputs)

    def probabilities(self, outputs: Array) -> Array:
        """Return the probabilities of the classes along their axis, or of each label.

        Raises
        ------
        ValueError
            The loss says nothing of them.
        """
        if self.link is None:
            raise ValueError(
                "this loss gives numbers, not probabilities: train with loss='cross_entropy', 'nll' or 'binary_cross_entropy'"
            )
        if self.link == "sigmoid":
            second = 0.5 * np.tanh(0.5 * self._as_targets(outputs)) + 0.5
            return np.stack([1 - second, second], axis=1) if self.binary else second
        if self.link == "softmax":
            outputs = outputs - outputs.max(axis=self.axis, keepdims=True)
        found: Array = np.exp(outputs)
        return found / found.sum(axis=self.axis, keepdims=True) if self.link == "softmax" else found

    def sums(self, outputs: Array, y: Array, weights: Array | None, loss: float, mass: float) -> Array:
        """Return float64 sums over rows, which add up.

        Parameters
        ----------
        outputs, y : (n, ...) arrays
            Of NumPy, or all of CuPy: then what they add up to is looked at.
        weights : (n,) array or None
            Of the rows; None for ones.
        loss, mass : float
            The sum of the rows' losses, and what it is to be divided by.
        """
        xp = namespace(outputs)
        weight = xp.ones(len(y)) if weights is None else weights.astype(np.float64)
        found = np.zeros(self.size)
        found[:2] = loss, mass
        if self.kind == "nothing" or not len(y):
            return found
        if self.kind == "numbers":
            target = y.astype(np.float64).reshape(len(y), self._targets, -1)
            squares = ((target - outputs.reshape(target.shape)) ** 2, target, target**2)
            found[2] = float(weight.sum()) * target.shape[2]
            found[3:] = np.concatenate([to_numpy(weight @ values.sum(axis=2)) for values in squares])
            return found
        right = self.decide(outputs) == y
        if self.kind == "labels":
            right = right.reshape(len(y), -1).all(axis=1)
        if self.kind == "classes":  # those that count
            counts = (y != self.ignored).reshape(len(y), -1)
            right = right.reshape(len(y), -1) & counts
            found[2:] = float(weight @ counts.mean(axis=1)), float(weight @ right.mean(axis=1))
        else:
            found[2:] = float(weight.sum()), float(weight @ right.astype(np.float64))
        return found

    def summarise(self, totals: Array) -> tuple[float, float]:
        """Return the mean loss and the score: accuracy, the mean of the targets' R squared, or the loss, negative."""
        loss, mass, weight = totals[:3].tolist()
        if not mass:
            return math.nan, math.nan
        if self.kind == "nothing":
            return loss / mass, -loss / mass
        if self.kind == "numbers":
            residuals, y, y_squared = totals[3:].reshape(3, -1)
            return loss / mass, r_squared(residuals, y, y_squared, weight)
        return loss / mass, float(totals[3]) / weight if weight else math.nan

    def _as_targets(self, outputs: Array) -> Array:
        return outputs.reshape(len(outputs), *self.shape)
