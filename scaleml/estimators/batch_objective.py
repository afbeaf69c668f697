"""Batch objective: a network with scikit-learn's arithmetic of perceptrons, for training in this process.

There a batch's objective is ``(sum of the losses + alpha * |weights|^2 / 2) / weight of the batch``: the penalty is a part of the batch's
sum, so that of the smaller last batch of an epoch counts for more, and an epoch's loss has the penalty of each batch as it was then. Log
losses are those of clipped probabilities. That is no sum over ranks: a group of ranks trains the mean loss and a fixed penalty.
"""

from __future__ import annotations

import copy
from typing import Any, final

import numpy as np
from scipy.special import expit

from scaleml.arrays import Array, Matrix
from scaleml.models import Network
from scaleml.models.blocks import Workspace
from scaleml.models.flat_model import Ready
from scaleml.models.losses import BinaryLog, Loss, Softmax

__all__ = ["BatchObjective"]


@final
class BatchObjective:
    """A network and the penalty of each batch's sum: a `FlatModel` for one rank.

    Parameters
    ----------
    network : Network
        Without a penalty of its own.
    alpha : float
        scikit-learn's.
    targets : int
        By which a stop rule divides the losses, but not the penalty.
    """

    def __init__(self, network: Network, alpha: float, targets: int = 1) -> None:
        self._network = copy.copy(network)
        if isinstance(network.loss, BinaryLog | Softmax):
            self._network.loss = _Clipped(network.loss, network.dtype)
        self._alpha, self._targets = alpha, targets
        self._weight = 1.0
        self.size, self.dtype = network.size, network.dtype
        self.parts, self.matrices, self.score_name = network.parts, network.matrices, network.score_name
        self.named_parts = network.named_parts
        self._weights = [slice(block.start, block.start + block.n_weights) for block in network.blocks]

    def init(self, seed: int) -> Array:
        """Return the parameters (P,) at the start."""
        return self._network.init(seed)

    def loss_grad(
        self, w: Array, x: Matrix, y: Array, weights: Array | None, out: Array, ready: Ready | None = None
    ) -> tuple[float, float]:
        """Write the gradient of the summed loss into `out`; return that loss with the penalty, and the weight of the rows."""
        loss, weight = self._network.loss_grad(w, x, y, weights, out, ready)
        self._weight = weight
        squares = sum(float(w[own] @ w[own]) for own in self._weights)
        return loss + 0.5 * self._alpha * squares * self._targets, weight

    def penalty(self, w: Array) -> float:
        """Return 0: it is in the losses of the batches."""
        return 0.0

    def objective_grad(self, w: Array, g: Array, scale: float = 1.0) -> float:
        """Make of the sum `g` (P,) of the last batch the objective's gradient, in place; return the sum of its squares."""
        for own in self._weights:
            g[own] += self._alpha * w[own]
        g /= self._weight  # not times its inverse: to the bit as there
        return float(g @ g)

    def statistics(self, w: Array, x: Matrix, y: Array, weights: Array | None = None) -> Array:
        """Return the network's sums."""
        return self._network.statistics(w, x, y, weights)

    def summarise(self, totals: Array) -> tuple[float, float]:
        """Return the network's loss and score."""
        return self._network.summarise(totals)

    def predict(self, w: Array, x: Matrix) -> Array:
        """Return the network's predictions."""
        return self._network.predict(w, x)


@final
class _Clipped(Loss):
    """The log loss of probabilities that are clipped to ``[eps, 1 - eps]``; its slopes are those of the loss itself."""

    def __init__(self, loss: Loss, dtype: np.dtype[Any]) -> None:
        self._loss = loss
        self._eps = float(np.finfo(dtype).eps)

    def evaluate(self, scores: Array, y: Array, work: Workspace) -> tuple[Array, Array]:
        """Return losses and slopes; see `Loss.evaluate`."""
        if isinstance(self._loss, Softmax):
            losses, slopes = self._loss.evaluate(scores, y, work)
            return np.clip(losses, -np.log1p(-self._eps), -np.log(self._eps), out=losses), slopes
        found = expit(scores, out=scores)
        right = np.clip(np.where(y > 0, found, 1 - found), self._eps, 1 - self._eps)
        losses = np.negative(np.log(right, out=right), out=right)
        found -= y
        return losses, found
