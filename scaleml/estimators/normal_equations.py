"""Normal equations of ridge regression: solved in the client, from moments that ranks have summed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, final

import numpy as np
from scipy import linalg, optimize

from scaleml.arrays import Array
from scaleml.models.moments import Sums

COLUMNS: Final = 2000
"""Columns up to which the normal equations are summed: 32 MB. Solving them takes about 0.2 s then."""
_DEPENDENT: Final = 4 * float(np.finfo(np.float64).eps)


@final
@dataclass(frozen=True)
class NormalEquations:
    """``(A + alpha I) coef' = B``, one column of B a target.

    Parameters
    ----------
    gram : (p, p) array
        A: the weighted sum of ``x x'``, of centred rows where an intercept is fitted.
    right : (p, t) array
        B: that of ``x y'``.
    squares : (t,) array
        That of ``y * y``.
    x_mean, y_mean : (p,), (t,) arrays
        What was subtracted.
    """

    gram: Array
    right: Array
    squares: Array
    x_mean: Array
    y_mean: Array

    @classmethod
    def of(cls, means: Sums, total: float, x_shift: Array, y_shift: Array, *, centred: bool) -> NormalEquations:
        """Make them of means over rows of the weight ``total``; ``centred`` for a model with an intercept."""
        gram, right, squares = means.xx, means.xy, means.yy
        if centred:
            gram = gram - np.outer(means.x, means.x)
            right = right - np.outer(means.x, means.y)
            squares = squares - means.y**2
        gram = (gram + gram.T) / 2 * total
        return cls(gram, right * total, squares * total, x_shift + means.x, y_shift + means.y)

    def solve(self, alpha: Array) -> Array:
        """Return the coefficients (t, p) for the penalties (t,): by Cholesky; of a singular system those of least norm."""
        if (alpha == alpha[0]).all():
            return _solved(self.gram, float(alpha[0]), self.right).T
        each = zip(alpha, self.right.T, strict=True)
        return np.stack([_solved(self.gram, float(own), column[:, None])[:, 0] for own, column in each])

    def solve_positive(self, alpha: Array, tol: float, max_iter: int | None) -> tuple[Array, bool]:
        """Return coefficients (t, p) that are not negative, by L-BFGS-B, and whether all have converged."""
        found, converged = np.empty(self.right.T.shape), True
        options = {} if max_iter is None else {"maxiter": max_iter}
        bounds = [(0, np.inf)] * len(self.gram)
        for target, (each, column) in enumerate(zip(alpha, self.right.T, strict=True)):
            system = self.gram + each * np.eye(len(self.gram))

            def objective(
                w: Array, system: Array = system, column: Array = column, square: float = self.squares[target]
            ) -> tuple[float, Array]:
                half = system @ w
                return float(0.5 * (w @ half + square) - w @ column), half - column

            result = optimize.minimize(
                objective, np.zeros(len(column)), method="L-BFGS-B", tol=tol, jac=True, options=options, bounds=bounds
            )
            found[target], converged = result.x, converged and bool(result.success)
        return found, converged


def _solved(gram: Array, alpha: float, right: Array) -> Array:
    """Return the solution for right-hand sides (p, k)."""
    system = gram + alpha * np.eye(len(gram))
    # With a diagonal of ones, whatever the columns' scales, a pivot says how much of a column the others do not explain.
    scale = 1 / np.sqrt(np.where(np.diag(system) > 0, np.diag(system), 1.0))
    try:
        factor, lower = linalg.cho_factor(system * np.outer(scale, scale))
    except linalg.LinAlgError:
        return np.asarray(linalg.lstsq(system, right)[0])
    if np.diag(factor).min() ** 2 <= _DEPENDENT * len(gram):
        return np.asarray(linalg.lstsq(system, right)[0])
    return np.asarray(scale[:, None] * linalg.cho_solve((factor, lower), scale[:, None] * right))
