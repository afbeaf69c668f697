"""What is minimised: losses of the scores, row by row and without overflow, and the penalty of the weights."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple, final

import numpy as np

from scaleml.arrays import PART, Array
from scaleml.models.blocks import Block, Workspace

__all__ = ["CLASSES", "LOSSES", "Loss", "Penalty"]

CLASSES = ("log_loss", "hinge", "squared_hinge", "modified_huber", "perceptron")
LOSSES = (*CLASSES, "squared_error", "huber", "epsilon_insensitive", "squared_epsilon_insensitive")


class Loss(ABC):
    """A loss of the scores of a network's last block."""

    @abstractmethod
    def evaluate(self, scores: Array, y: Array, work: Workspace) -> tuple[Array, Array]:
        """Return the losses, to be summed over all their elements, and their derivatives by the scores.

        Parameters
        ----------
        scores : array of shape (n,) or (n, n_outputs)
            Overwritten.
        y : array of shape (n,) or (n, n_outputs)
        work : Workspace
            The results lie in it or in `scores`.

        Returns
        -------
        losses : array of shape (n,) or (n, n_outputs)
        slopes : array of the scores' shape
        """

    @final
    def gradient(
        self, scores: Array, y: Array, sample_weight: Array | None, work: Workspace
    ) -> tuple[float, float, Array]:
        """Return the weighted sum of the losses, the sum of the weights and the weighted slopes.

        Parameters
        ----------
        scores : array of shape (n,) or (n, n_outputs)
            Overwritten.
        y : array of shape (n,) or (n, n_outputs)
        sample_weight : array of shape (n,), optional
            Ones if not given.
        work : Workspace

        Returns
        -------
        loss_sum, weight_sum : float
            On a GPU arrays of no dimensions there, where they are sums of some: nobody waits for them.
        slopes : array of the scores' shape
        """
        losses, slopes = self.evaluate(scores, y, work)
        number = work.number
        if sample_weight is None:
            total = work.sum(losses) if losses.ndim == 1 else losses.sum()
            return number(total), float(len(scores)), slopes
        if slopes.ndim == 1:
            slopes *= sample_weight
        else:
            slopes *= sample_weight[:, None]
        return number((sample_weight @ losses).sum()), number(sample_weight.sum()), slopes


@final
class BinaryLog(Loss):
    """``log(1 + exp(-m))`` with margin ``m = (2 y - 1) score``, for y of 0 and 1, one or several a row.

    All by ``t = tanh(m / 2)``, which cannot overflow: the slope by the margin is ``(t - 1) / 2``, and the loss is
    ``max(-m, 0) - log((1 + |t|) / 2)``.
    """

    def evaluate(self, scores: Array, y: Array, work: Workspace) -> tuple[Array, Array]:
        """Return losses and slopes, both of the scores' shape; see `Loss.evaluate`."""
        xp, scalars = work.xp, work.scalars
        sign = work.rows("sign", *scores.shape)
        half = work.rows("half", *scores.shape)
        xp.subtract(y, scalars[0.5], out=sign)  # +-1/2
        scores *= sign  # m / 2
        xp.tanh(scores, out=half)
        half *= sign
        slopes = xp.subtract(half, sign, out=sign)
        xp.absolute(half, out=half)
        half += scalars[0.5]
        xp.log(half, out=half)
        xp.minimum(scores, scalars[0], out=scores)
        scores *= scalars[-2]
        scores -= half
        return scores, slopes


@final
class Softmax(Loss):
    """``log(sum of exp(scores)) - score of the class``, for y of class codes."""

    def evaluate(self, scores: Array, y: Array, work: Workspace) -> tuple[Array, Array]:
        """Return losses (n,) and slopes (n, n_outputs); see `Loss.evaluate`."""
        xp, n = work.xp, len(scores)
        at = work.row_numbers(n), y
        scores -= scores.max(axis=1, keepdims=True)
        of_class = scores[at]
        xp.exp(scores, out=scores)
        total = scores.sum(axis=1)
        scores /= total[:, None]
        scores[at] -= 1
        xp.log(total, out=total)
        total -= of_class
        return total, scores


@final
class Hinge(Loss):
    """``max(0, 1 - m)`` with margin ``m = +-score``; with class codes one class against the rest, summed."""

    def evaluate(self, scores: Array, y: Array, work: Workspace) -> tuple[Array, Array]:
        """Return losses and slopes, both of the scores' shape; see `Loss.evaluate`."""
        xp, n = work.xp, len(scores)
        sign = work.rows("sign", *scores.shape)
        if scores.ndim == 1:
            xp.multiply(y, -2, out=sign)
            sign += 1
        else:
            sign[...] = 1
            sign[work.row_numbers(n), y] = -1
        scores *= sign  # -m
        scores += 1
        xp.maximum(scores, 0, out=scores)
        sign *= xp.greater(scores, 0, out=work.rows("mask", *scores.shape, dtype=bool))
        return scores, sign


@final
class OwnClass(Loss):
    """A loss of one class against the rest, where each class weighs more, or less, in its own problem.

    Parameters
    ----------
    loss : Loss
        Its losses have the scores' shape, (n, K).
    weights : tuple of float
        K of them.
    """

    def __init__(self, loss: Loss, weights: tuple[float, ...]) -> None:
        self.loss, self.weights = loss, np.asarray(weights)

    def evaluate(self, scores: Array, y: Array, work: Workspace) -> tuple[Array, Array]:
        """Return losses and slopes, both of the scores' shape; see `Loss.evaluate`."""
        losses, slopes = self.loss.evaluate(scores, y, work)
        weights = work.xp.asarray(self.weights, slopes.dtype)
        own: Array | tuple[Array, Array]
        if y.ndim == 1:  # class codes
            own = work.row_numbers(len(y)), y
            factors = weights[y]
        else:  # 1 and -1
            own = y > 0
            factors = work.xp.broadcast_to(weights, y.shape)[own]
        losses[own] *= factors
        slopes[own] *= factors
        return losses, slopes


@final
class Squared(Loss):
    """``(score - y)^2 / 2``, summed over the targets."""

    def evaluate(self, scores: Array, y: Array, work: Workspace) -> tuple[Array, Array]:
        """Return losses and slopes, both of the scores' shape; see `Loss.evaluate`."""
        scores -= y
        losses = work.rows("losses", *scores.shape)
        work.xp.multiply(scores, scores, out=losses)
        losses *= 0.5
        return losses, scores


@final
class Huber(Loss):
    """``r^2 / 2`` where ``|r| <= epsilon``, ``epsilon |r| - epsilon^2 / 2`` beyond, with ``r = score - y``."""

    def __init__(self, epsilon: float) -> None:
        self.epsilon = epsilon

    def evaluate(self, scores: Array, y: Array, work: Workspace) -> tuple[Array, Array]:
        """Return losses and slopes, both of the scores' shape; see `Loss.evaluate`."""
        xp = work.xp
        scores -= y
        slopes = work.rows("slopes", *scores.shape)
        losses = work.rows("losses", *scores.shape)
        xp.minimum(scores, self.epsilon, out=slopes)
        xp.maximum(slopes, -self.epsilon, out=slopes)
        xp.multiply(slopes, -0.5, out=losses)
        losses += scores
        losses *= slopes
        return losses, slopes


@final
class EpsilonInsensitive(Loss):
    """``max(0, |score - y| - epsilon)``."""

    def __init__(self, epsilon: float) -> None:
        self.epsilon = epsilon

    def evaluate(self, scores: Array, y: Array, work: Workspace) -> tuple[Array, Array]:
        """Return losses and slopes, both of the scores' shape; see `Loss.evaluate`."""
        xp = work.xp
        scores -= y
        losses = work.rows("losses", *scores.shape)
        xp.absolute(scores, out=losses)
        losses -= self.epsilon
        xp.maximum(losses, 0, out=losses)
        xp.sign(scores, out=scores)
        scores *= xp.greater(losses, 0, out=work.rows("mask", *scores.shape, dtype=bool))
        return losses, scores


@final
class SquaredEpsilonInsensitive(Loss):
    """``max(0, |score - y| - epsilon)^2``."""

    def __init__(self, epsilon: float) -> None:
        self.epsilon = epsilon

    def evaluate(self, scores: Array, y: Array, work: Workspace) -> tuple[Array, Array]:
        """Return losses and slopes, both of the scores' shape; see `Loss.evaluate`."""
        xp = work.xp
        scores -= y
        beyond = work.rows("slopes", *scores.shape)
        xp.minimum(scores, self.epsilon, out=beyond)
        xp.maximum(beyond, -self.epsilon, out=beyond)
        scores -= beyond
        losses = xp.multiply(scores, scores, out=work.rows("losses", *scores.shape))
        scores *= 2
        return losses, scores


@final
class Penalty:
    """``l1 * |weights|_1 + l2 * |weights|_2^2 / 2``, without the biases.

    Parameters
    ----------
    blocks : sequence of Block
        The network's: they say where weights lie.
    l1, l2 : float
    """

    def __init__(self, blocks: Sequence[Block], l1: float, l2: float) -> None:
        self.l1, self.l2 = l1, l2
        self._weights = [(block.start, block.start + block.n_weights) for block in blocks] if l1 or l2 else []
        self._size = blocks[-1].stop
        self._whole = (_Part(slice(0, self._size), self._weights),)

    @cached_property
    def _parts(self) -> tuple[_Part, ...]:  # made where they are used: settings of any size are built at once
        bounds = [*range(0, self._size, PART), self._size]
        return tuple(_Part(slice(*ends), self._within(*ends)) for ends in itertools.pairwise(bounds))

    def _within(self, start: int, stop: int) -> list[tuple[int, int]]:
        ends = [(max(first, start), min(last, stop)) for first, last in self._weights]
        return [(first, last) for first, last in ends if first < last]

    def value(self, w: Array) -> float:
        """Return the penalty at `w` (P,)."""
        total = 0.0
        for first, last in self._weights:
            for start in range(first, last, PART):
                weights = w[start : min(start + PART, last)]
                if self.l1:
                    total += self.l1 * float(abs(weights).sum())
                if self.l2:  # not by BLAS, whose bits differ between processors: ranks decide by this
                    total += 0.5 * self.l2 * float((weights * weights).sum())
        return total

    def objective_grad(self, w: Array, g: Array, scale: float, work: Workspace) -> float:
        """Make of the sum `g` (P,) the objective's gradient, in place; see `Network.objective_grad`."""
        parts: Sequence[_Part] = self._whole
        number, squares = work.number, 0.0
        if type(g) is np.ndarray:  # on a GPU a few long passes are faster than many short ones
            parts, scale = self._parts, work.scalars[scale]
        for part in parts:
            own = g[part.all]
            own *= scale
            for start, stop in part.weights:
                self._add(w[start:stop], g[start:stop], work)
            squares += number(own.dot(own))
        return squares

    def _add(self, w: Array, g: Array, work: Workspace) -> None:
        # Into scratch: a fresh array of this size is mapped and faulted in anew at each step.
        term = work.rows("penalty", len(w))
        if self.l2:
            work.xp.multiply(w, work.scalars[self.l2], out=term)
            g += term
        if self.l1:
            work.xp.sign(w, out=term)
            term *= work.scalars[self.l1]
            g += term


class _Part(NamedTuple):
    """A part of the vector, and the weights in it."""

    all: slice
    weights: list[tuple[int, int]]
