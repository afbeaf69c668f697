"""Weight decay: what an L2 penalty does to the coefficients that no row of a batch touches, as one factor of them all."""

from __future__ import annotations

from typing import Final, final

import numpy as np

from scaleml.arrays import Array

DECAY: Final = "weight_decay"
"""Where in a state's arrays the factor of all coefficients is kept."""
_SMALLEST: Final = 1e-3
"""A factor of all coefficients that is smaller is multiplied into them, or they would overflow."""


@final
class WeightDecay:
    """The L2 penalty of plain SGD, without a pass over the parameters.

    With a factor ``a`` the parameters are ``a * w``, but for the intercept's. An update
    ``a w <- a w - rate * (l2 * a w + g)`` is ``a <- (1 - rate * l2) a`` and, where ``g`` is not zero, ``w <- w - rate * g / a``.

    Parameters
    ----------
    arrays : dict of arrays
        Of a train state: what it keeps beside its parameters, and where the factor is.
    count : int
        So many of the first parameters are coefficients; the others are intercepts.
    l2 : float
        0 for no penalty.

    References
    ----------
    Bottou, Stochastic gradient descent tricks, 2012, section 5.1.
    """

    def __init__(self, arrays: dict[str, Array], count: int, l2: float) -> None:
        self._arrays = arrays
        self._count = count
        self._l2 = l2
        arrays.setdefault(DECAY, np.ones(1))

    @property
    def factor(self) -> float:
        """The factor of all coefficients."""
        kept = self._arrays.get(DECAY)
        return 1.0 if kept is None else float(kept[0])

    def step(self, w: Array, g: Array, entries: Array, rate: float) -> bool:
        """Let all coefficients in ``w`` decay by one update, and make of ``g``, at some entries, what is to be subtracted there.

        True if every coefficient was written to: once in thousands of updates, unless the rate is absurd.
        """
        if not self._l2:
            return False
        factor = self.factor * (1.0 - rate * self._l2)
        written = not factor > _SMALLEST
        if written:
            w[: self._count] *= factor
            factor = 1.0
        self._arrays[DECAY][0] = factor
        if factor != 1.0:
            g[: np.searchsorted(entries, self._count)] /= factor
        return written

    def values(self, w: Array) -> Array:
        """Return the parameters (P,): ``w`` itself where the factor is 1."""
        factor = self.factor
        if factor == 1.0:
            return w
        found = np.array(w)
        found[: self._count] *= factor
        return found

    def at(self, part: Array, keys: Array, width: int) -> Array:
        """Make of ``w``'s items at ascending keys, of ``width`` items each, the parameters there; in place."""
        factor = self.factor
        if factor != 1.0:
            part[: int(np.searchsorted(keys, self._count // width)) * width] *= factor
        return part

    def squares(self, w: Array, g: Array, entries: Array) -> float:
        """Return what the penalty adds to the squared norm of the gradient whose entries ``g`` are, and all others 0."""
        coefficients, scale = w[: self._count], self._l2 * self.factor
        last = int(np.searchsorted(entries, self._count))
        common = float(g[:last].dot(coefficients[entries[:last]]))
        return scale * (2 * common + scale * float(coefficients.dot(coefficients)))

    def end(self, w: Array) -> None:
        """Leave the parameters in ``w``, and nothing beside it."""
        w[: self._count] *= self.factor
        self._arrays.pop(DECAY, None)
