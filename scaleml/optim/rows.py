"""Row steps: scikit-learn's step on one row, for batches; a step size a coordinate that no scale of the data makes unstable."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal, final

import numpy as np

from scaleml.arrays import Array, Matrix, is_sparse, namespace
from scaleml.optim.columns import Columns
from scaleml.optim.trial_batches import rare_rows, weighted_batches

__all__ = ["RowRate", "RowSteps"]

_DECAY: Final = 0.1
"""By what part of itself the bound on a step tightens each epoch: the noise of large steps dies out."""
_COMPARABLE: Final = 100.0
"""Second moments that differ by no more than this are of columns in the same units."""
_BATCHES: Final = 4
_POWERS: Final = 8


@final
@dataclass(frozen=True)
class RowRate:
    """The learning rate of scikit-learn's ``SGDClassifier`` and ``SGDRegressor`` at row ``t`` (the first is 1).

    Parameters
    ----------
    schedule : {"constant", "optimal", "invscaling", "adaptive"}
    eta0, power_t, alpha : float
        ``eta0``; ``1 / (alpha * (t0 + t - 1))`` with ``t0 = alpha ** -0.75``; ``eta0 / t ** power_t``; ``eta0``, which
        the stop rule divides by 5.

    Examples
    --------
    >>> RowRate("optimal", alpha=1e-4).at(1), RowRate("invscaling", eta0=0.1, power_t=0.5).at(100)
    (10.0, 0.01)
    """

    schedule: Literal["constant", "optimal", "invscaling", "adaptive"]
    eta0: float = 0.01
    power_t: float = 0.5
    alpha: float = 1e-4

    def at(self, t: float) -> float:
        """Return the rate of row ``t``."""
        if self.schedule == "optimal":
            return 1.0 / (self.alpha * (self.alpha**-0.75 + t - 1))
        return self.eta0 / t**self.power_t if self.schedule == "invscaling" else self.eta0


@final
class RowSteps:
    """Turns the mean gradient of B rows into about the sum of scikit-learn's B steps, one a row.

    With ``eta`` the rate of a row, coordinate j moves by ``g_j / (1 / (B eta) + c_j)``: by ``B eta g_j`` while that is
    small, and never by more than its curvature ``c_j`` allows, as in an implicit step. ``c_j`` is the second moment of
    column j times the loss's largest curvature times one factor for all columns, chosen by the power method on batches
    of the data, so that a step at the start does not overshoot. With an intercept, second moments are about the means
    of the columns, and what the rows have in common, ``m = (means, 1)``, is a direction with a curvature of its own, ``c_0 m m'``:
    columns that are all positive would otherwise hide all else behind it. So columns need no scaling, and no learning rate
    diverges.

    It rescales gradients only: the minimum that training approaches is the same.

    Parameters
    ----------
    rate : RowRate
        The rate of a row.
    batch : int
        B, rows of one update.
    epoch : int
        Rows of an epoch.
    moments, centre : arrays of shape (F,)
        Of the columns: second moments about `centre`, and the point they are seen from.
    factor : float
        On all second moments.
    curvature : float
        The loss's largest second derivative.
    outputs : int
        K, scores a row.
    intercept : bool
        Whether the model has one; without, `centre` is 0.
    l1, l2 : float
        The penalty's parts. The L1 part is applied by `shrink`, so that coefficients become exactly 0.
    unit : float
        The optimizer's own learning rate, by which its steps are multiplied afterwards.
    level : float
        Mean weight of the rows of a batch up to which the bound holds.
    leverage : float
        By how much of a step the weight above that overshoots: it is of a single row. Such a batch takes a part of its step.
    dtype : str
        Of the parameters.

    References
    ----------
    Toulis and Airoldi: Asymptotic and finite-sample properties of estimators based on stochastic gradients, 2017.
    """

    def __init__(
        self,
        rate: RowRate,
        batch: int,
        epoch: int,
        moments: Array,
        centre: Array,
        *,
        factor: float = 1.0,
        curvature: float = 1.0,
        outputs: int = 1,
        intercept: bool = True,
        l1: float = 0.0,
        l2: float = 0.0,
        unit: float = 1.0,
        level: float = math.inf,
        leverage: float = 0.0,
        dtype: str = "float32",
    ) -> None:
        self.rate, self.batch, self.epoch, self.l1, self.l2 = rate, batch, epoch, l1, l2
        self.unit, self.factor, self.level, self.leverage = unit, factor, level, leverage
        self._features, self._outputs, self._intercept = len(moments), outputs, intercept
        self._centre = np.asarray(centre, dtype) if intercept and np.any(centre) else None
        bound = np.append(moments, 1.0) if intercept else np.asarray(moments)
        self._bound = (factor * curvature * bound).astype(dtype)
        self._scale: Array | None = None
        self._first: Array | None = None
        self._shorter = 1.0
        self._key = (math.nan, math.nan)

    @classmethod
    def measured(
        cls,
        x: Matrix,
        columns: Columns,
        rate: RowRate,
        batch: int,
        epoch: int,
        *,
        weights: Array | None = None,
        counts: Array | None = None,
        spares: bool = True,
        seed: int,
        intercept: bool,
        curvature: float,
        dtype: str = "float32",
        outputs: int = 1,
        l1: float = 0.0,
        l2: float = 0.0,
        unit: float = 1.0,
    ) -> RowSteps:
        """Return the steps for data like ``x`` (n, F), a sample of the rows, dense or CSR, with these columns.

        Where rows weigh differently, `weights` (n,) are theirs, at a mean of 1 over all the rows, and `counts` (n,) says for
        how many of all rows each stands: rows without weight are left out. The factor is then such that neither a usual batch
        overshoots nor one with as many of the heaviest rows as chance will bring together. With `spares` rows that are too heavy and
        too rare to slow down all steps for are left out of this, and shorten those of their batches.

        Examples
        --------
        >>> import numpy as np
        >>> x = np.random.default_rng(0).standard_normal((500, 2)) * [1, 1000] + [0, 5000]
        >>> columns, rate = Columns(2).add(x), RowRate("constant", 10.0)
        >>> steps = RowSteps.measured(
        ...     x, columns, rate, 10, 500, seed=0, intercept=True, curvature=1.0, dtype="float64"
        ... )
        >>> g = np.array([1.0, 1000.0, 0.0])
        >>> steps.apply(g, seen=0)
        >>> bool(0.1 < g[0] < 1 and 0.0001 < g[1] < 0.001)
        True
        """
        random = np.random.default_rng(seed)
        centre, moments = columns.seen_from(intercept, np.dtype(dtype))
        if epoch < len(moments) and not is_sparse(x) and moments.max() <= _COMPARABLE * moments.min():
            # Fewer rows than columns: many solutions fit, and the steps decide which. As in scikit-learn, all columns step
            # alike then, so that those of larger values count for more.
            moments = np.full_like(moments, moments.mean())
        make = partial(
            cls, rate, batch, epoch,
            curvature=curvature, intercept=intercept, dtype=dtype, outputs=outputs, l1=l1, l2=l2, unit=unit,
        )  # fmt: skip
        # What no row fills takes no part: of hashed text that is nearly all.
        filled = np.flatnonzero(moments) if is_sparse(x) else slice(None)
        x, narrow = x[:, filled], (moments[filled], centre[filled])
        level, rare = math.inf, np.zeros(0, np.int64)
        if weights is None or counts is None:
            parts = [np.sort(random.choice(x.shape[0], min(batch, x.shape[0]), replace=False)) for _ in range(_BATCHES)]
            batches = [(x[part], np.full(len(part), curvature / len(part))) for part in parts]
        else:
            rare, usual = rare_rows(weights, counts, batch / epoch if spares else 0.0)
            parts = [
                usual[part] for part in weighted_batches(weights[usual], counts[usual], batch, epoch, _BATCHES, random)
            ]
            batches = [(x[part], weights[part] * (curvature / batch)) for part in parts]
            level = max(float(weights[part].sum()) for part in parts) / batch if len(rare) else math.inf
        factor = 1.0
        for _ in range(4):
            made = make(*narrow, factor=factor)
            largest = max(_largest(part, bends, made, intercept, random) for part, bends in batches)
            if (weights is None or largest > 0.95) and largest <= 1.05:
                break
            factor *= largest
        one = np.full(1, curvature)
        leverage = max((_largest(x[[row]], one, made, intercept, random) for row in rare[-_BATCHES * 4 :]), default=0.0)
        return make(moments, centre, factor=made.factor, level=level, leverage=leverage)

    def steps(self, seen: float) -> Array:
        """Return the step sizes of the columns, and of the intercept last, after ``seen`` rows."""
        floor = 1.0 / (self.batch * self.rate.at(seen + 1))
        tightened = 1.0 + _DECAY * seen / self.epoch
        # A change of less than a thousandth is not worth the pass over all columns.
        if self._scale is None or abs(floor / self._key[0] - 1) + abs(tightened / self._key[1] - 1) > 1e-3:
            self._key = (floor, tightened)
            scale, f = self._bound * tightened, self._features
            scale[:f] += self.l2
            scale += floor
            scale *= self.unit
            np.reciprocal(scale, out=scale)
            self._scale = scale
            if self.leverage:
                self._first = scale.copy() if self._first is None else self._first
                self._shorter = float((scale / self._first).max())
            if self._centre is not None:
                self._own, self._common = floor * self.unit, float(self._bound[f]) * tightened * self.unit
                self._lean = self._centre * scale[:f]
                scale[f] = 1 / (self._own + self._common * (1 + self._own * float(self._lean @ self._centre)))
        return self._scale

    def apply(self, g: Array, seen: float, rows: float | None = None, weight: float = 1.0) -> None:
        """Turn the mean gradient ``g`` (P,) of ``rows`` rows of this mean weight into steps, in place, after ``seen`` rows.

        The last batch of an epoch is smaller, and so is its step: else its noise would outweigh all others'.
        """
        if rows is not None and rows != self.batch:
            g *= rows / self.batch
            weight *= rows / self.batch
        if weight > self.level:
            self.steps(seen)
            g *= 1 / (1 + (weight - self.level) * self.leverage * self._shorter)
        self._solve(g.reshape(-1, self._outputs), seen)

    def _solve(self, g: Array, seen: float) -> None:
        """Solve for the step (F + 1, K) in place, by Sherman and Morrison's formula for the part of ``m m'``."""
        scale, centre = self.steps(seen), self._centre
        xp = namespace(g)
        if xp is not np:
            scale = xp.asarray(scale)
        scale = scale[:, None]
        if centre is None:
            g *= scale
            return
        weights, offset = g[:-1], g[-1]
        centre, lean = xp.asarray(centre), xp.asarray(self._lean)
        weights -= centre[:, None] * offset  # seen from the centre, so that little cancels
        weights *= scale[:-1]
        offset -= self._common * (centre @ weights)
        offset *= scale[-1]
        weights += lean[:, None] * (self._own * offset)

    def slots(self) -> dict[str, Array]:
        """Return the state that `shrink` needs, at the start: the L1 penalty that is due, and what each coefficient has paid."""
        if not self.l1:
            return {}
        f, k, dtype = self._features, self._outputs, self._bound.dtype
        return {"l1_due": np.zeros(f, dtype), "l1_paid": np.zeros(f * k, dtype)}

    def shrink(self, w: Array, seen: float, rate: float, state: dict[str, Array]) -> None:
        """Move the coefficients in ``w`` (P,) towards 0 by all of the L1 penalty that they still owe, and not past it.

        A coefficient that the noise of one batch moves off 0 is brought back by what it has not paid while it was 0.

        References
        ----------
        Tsuruoka, Tsujii and Ananiadou: Stochastic gradient descent training for L1-regularized log-linear models with
        cumulative penalty, 2009; as in scikit-learn.
        """
        if not self.l1:
            return
        xp, f, k = namespace(w), self._features, self._outputs
        weights = w[: f * k].reshape(f, k)
        due, paid = state["l1_due"].reshape(f, 1), state["l1_paid"].reshape(f, k)
        due += xp.asarray(self.steps(seen)[:f, None]) * (self.l1 * rate)
        owed = xp.where(weights > 0, due + paid, due - paid)
        change = xp.clip(weights, -owed, owed)
        weights -= change
        paid -= change
        if self._centre is not None:  # the rows' scores stay where they are on average
            w[f * k :] += (self._common / (self._common + self._own)) * (xp.asarray(self._centre) @ change)


def _largest(x: Matrix, bends: Array, made: RowSteps, intercept: bool, random: np.random.Generator) -> float:
    """Return the largest eigenvalue of a batch's Hessian in units of the steps: above 2 a step overshoots.

    ``bends`` (n,) is the curvature of each row's part of the objective.
    """
    f = x.shape[1]
    v, largest = random.standard_normal(f + intercept), 0.0
    for _ in range(_POWERS):
        v /= math.sqrt(float(v @ v)) or 1.0
        scores = (x @ v[:f] + (v[f] if intercept else 0.0)) * bends
        h = np.append(x.T @ scores, scores.sum()) if intercept else x.T @ scores
        along, v = float(v @ h), h.copy()
        made._solve(v[:, None], 0)
        v *= made.unit
        if along > 0:
            largest = float(h @ v) / along
    return largest
