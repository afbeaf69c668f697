"""Network of a framework: what all flat models have in common that are made of a module; frameworks add the arithmetic."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from scaleml.arrays import Array, Matrix, is_sparse
from scaleml.frameworks.layout import Layout
from scaleml.frameworks.scorer import Scorer
from scaleml.models.base import Signature
from scaleml.models.flat_model import Ready

__all__ = ["ModuleNetwork", "dense"]

_BYTES: Final = 1 << 22
"""Bytes of X that are evaluated together: bounds the memory of a module's layers; fixed, so that sums are, too."""
_MOST: Final = 1024


class ModuleNetwork(ABC):
    """A flat model made of a module of another framework: `Layered`, `Named`, `Scoring` and `Probabilistic`.

    Parameters
    ----------
    layout : Layout
        Of its parameters.
    scorer : Scorer
        What its outputs say.
    signature : Signature
        Of the data.
    dtype : str
        Of the parameters.
    """

    def __init__(self, layout: Layout, scorer: Scorer, signature: Signature, dtype: str) -> None:
        self.layout, self.scorer, self.signature = layout, scorer, signature
        self.dtype = np.dtype(dtype)
        self.size = layout.size
        self.parts = layout.parts
        self.matrices = layout.matrices
        self.named_parts = layout.named_parts
        self.score_name = scorer.score_name

    @abstractmethod
    def init(self, seed: int) -> Array:
        """Return the parameters (P,) at the start; see `FlatModel.init`."""

    @abstractmethod
    def loss_grad(
        self, w: Array, x: Matrix, y: Array, weights: Array | None, out: Array, ready: Ready | None = None
    ) -> tuple[float, float]:
        """Write the gradient of the summed loss into `out`; return the summed loss and weights; see `FlatModel.loss_grad`."""

    @abstractmethod
    def module(self, w: Array) -> Any:
        """Return the framework's own module with these parameters (P,), which is the caller's."""

    @abstractmethod
    def _evaluated(self, w: Array, x: Array, y: Array, weights: Array | None) -> tuple[Array, float, float]:
        """Return the outputs of rows in evaluation mode, their summed loss, and what it is divided by for its mean."""

    @abstractmethod
    def _outputs(self, w: Array, x: Array) -> Array:
        """Return the outputs of rows in evaluation mode."""

    def statistics(self, w: Array, x: Matrix, y: Array, weights: Array | None = None) -> Array:
        """Return float64 sums that add over parts of the data, and that `summarise` turns into loss and score."""
        x, total = dense(x), np.zeros(self.scorer.size)
        for part in _parts(x):
            weight = None if weights is None else weights[part]
            outputs, loss, mass = self._evaluated(w, x[part], y[part], weight)
            total += self.scorer.sums(outputs, y[part], weight, loss, mass)
        return total

    def summarise(self, totals: Array) -> tuple[float, float]:
        """Return the mean loss and the score: accuracy, R squared, or, of what only the loss can read, the loss, negative."""
        return self.scorer.summarise(totals)

    def scores(self, w: Array, x: Matrix) -> Array:
        """Return the module's outputs, (n, classes), or (n,) where one number a row decides."""
        return self.scorer.scores(self._all_outputs(w, x))

    def predict(self, w: Array, x: Matrix) -> Array:
        """Return class codes, labels of 0 and 1, or outputs, in the shape of the targets."""
        return self.scorer.decide(self._all_outputs(w, x))

    def predict_proba(self, w: Array, x: Matrix) -> Array:
        """Return the probabilities of the classes, (n, classes), or of each label.

        Raises
        ------
        ValueError
            The loss says nothing of them.
        """
        if self.scorer.link is None:
            self.scorer.probabilities(np.empty(0))
        return self.scorer.probabilities(self._all_outputs(w, x))

    def _hand_over(self, grads: Sequence[Any], out: Array, ready: Ready | None) -> None:
        """Copy the gradients of all arrays, which a framework has at once, into `out`, and say of each part that it is final."""
        for group, part in zip(reversed(self.layout.groups), reversed(self.parts), strict=True):
            for number in group:
                out[self.layout.slices[number]] = np.asarray(grads[number]).reshape(-1)
            if ready is not None:
                ready(part)

    def _all_outputs(self, w: Array, x: Matrix) -> Array:
        x = dense(x)
        found = [self._outputs(w, x[part]) for part in _parts(x)]
        return self._outputs(w, x) if not found else found[0] if len(found) == 1 else np.concatenate(found)


def _parts(x: Array) -> list[slice]:
    """Return the rows that are evaluated together, one after the other."""
    rows = min(_MOST, max(32, _BYTES // max(1, x.nbytes // max(1, len(x)))))
    return [slice(start, start + rows) for start in range(0, len(x), rows)]


def dense(x: Matrix) -> Array:
    """Return rows that are known to be dense."""
    assert not is_sparse(x), "a model that takes rows of any shape is given dense ones"
    return x
