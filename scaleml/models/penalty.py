"""Penalty of a network's weights (L1, L2), and the gradient of the objective that it is part of."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple, final

import numpy as np

from scaleml.arrays import PART, Array
from scaleml.models.blocks import Block, Workspace

__all__ = ["Penalty"]


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
        size = blocks[-1].stop
        self._whole = (_Part(slice(0, size), self._weights),)
        bounds = [*range(0, size, PART), size]
        self._parts = tuple(_Part(slice(*ends), self._within(*ends)) for ends in itertools.pairwise(bounds))

    def _within(self, start: int, stop: int) -> list[tuple[int, int]]:
        ends = [(max(first, start), min(last, stop)) for first, last in self._weights]
        return [(first, last) for first, last in ends if first < last]

    def value(self, w: Array) -> float:
        """Return the penalty at `w` (P,)."""
        total = 0.0
        for start, stop in self._weights:
            weights = w[start:stop]
            if self.l1:
                total += self.l1 * float(abs(weights).sum())
            if self.l2:
                total += 0.5 * self.l2 * float(weights @ weights)
        return total

    def objective_grad(self, w: Array, g: Array, scale: float, work: Workspace) -> float:
        """Make of the sum `g` (P,) the objective's gradient, in place; see `Network.objective_grad`."""
        scale, squares = work.scalars[scale], 0.0
        # On a GPU a few long passes are faster than many short ones.
        for part in self._parts if type(g) is np.ndarray else self._whole:
            own = g[part.all]
            own *= scale
            for start, stop in part.weights:
                self._add(w[start:stop], g[start:stop], work)
            squares += float(own.dot(own))
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
