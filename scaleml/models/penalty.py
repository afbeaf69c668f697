"""The penalty of a network's weights, and the gradient of the objective that it is part of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from scaleml.arrays import Array
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
        g *= work.numbers[scale]
        for start, stop in self._weights:
            own, part = w[start:stop], g[start:stop]
            # Into scratch: a fresh array of this size is mapped and faulted in anew at each step.
            term = work.rows("penalty", stop - start)
            if self.l2:
                work.xp.multiply(own, work.numbers[self.l2], out=term)
                part += term
            if self.l1:
                work.xp.sign(own, out=term)
                term *= work.numbers[self.l1]
                part += term
        return float(g.dot(g))
