"""Moments of the rows: what normal equations are made of, summed over ranks in one pass like a gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, final

import numpy as np

from scaleml.arrays import CSR, Array, Matrix, is_sparse
from scaleml.models.base import Model, Signature
from scaleml.models.flat_model import Ready

__all__ = ["Moments"]


class Sums(NamedTuple):
    """Weighted sums, or means, over rows (x, y), each less its shift."""

    xx: Array
    """(p, p) of ``x x'``."""
    xy: Array
    """(p, t) of ``x y'``."""
    x: Array
    """(p,)"""
    y: Array
    """(t,)"""
    yy: Array
    """(t,) of ``y * y``."""


@final
@dataclass(frozen=True, repr=False)
class Moments(Model):
    """Means of ``x x'``, ``x y'``, ``x``, ``y`` and ``y * y`` over weighted rows: not trained but summed, by one step of `optim.Summed`.

    Parameters
    ----------
    x_shift : tuple of float
        Subtracted from each row of dense X, about its mean: so that no large numbers cancel. CSR rows are taken as they are.
    y_shift : tuple of float
        The same of the targets.
    dtype : {"float32", "float64"}
        Of X. Sums are float64.
    """

    x_shift: tuple[float, ...] = ()
    y_shift: tuple[float, ...] = ()
    dtype: str = "float64"

    @property
    def is_classifier(self) -> bool:
        """No."""
        return False

    def build(self, signature: Signature) -> FlatMoments:
        """Return what sums the rows of such data."""
        return FlatMoments(signature.n_features, signature.n_outputs, self.x_shift, self.y_shift)


@final
class FlatMoments:
    """All moments as one flat vector, a `FlatModel`; the "gradient" of a row is the negative of what it adds."""

    def __init__(self, features: int, targets: int, x_shift: tuple[float, ...], y_shift: tuple[float, ...]) -> None:
        self.features, self.targets = features, targets
        self.dtype = np.dtype(np.float64)
        self._x_shift, self._y_shift = np.asarray(x_shift), np.asarray(y_shift)
        self._sizes = (features * features, features * targets, features, targets, targets)
        self.size = sum(self._sizes)

    def init(self, seed: int) -> Array:
        """Return zeros."""
        return np.zeros(self.size)

    def parts(self, w: Array) -> Sums:
        """Return what lies where in a vector (P,): views."""
        xx, xy, x, y, yy = np.split(w, np.cumsum(self._sizes[:-1]))
        return Sums(xx.reshape(self.features, self.features), xy.reshape(self.features, self.targets), x, y, yy)

    def loss_grad(
        self, w: Array, x: Matrix, y: Array, weights: Array | None, out: Array, ready: Ready | None = None
    ) -> tuple[float, float]:
        """Write the negative sums over the rows; return 0 and the summed weights; see `FlatModel.loss_grad`."""
        sums = self.parts(out)
        targets = y.astype(np.float64).reshape(len(y), -1)
        if len(self._y_shift):
            targets -= self._y_shift
        mass = np.ones(len(y)) if weights is None else weights.astype(np.float64)
        weighed = targets * mass[:, None]
        if is_sparse(x):
            self._sparse(sums, x, mass, weighed)
        else:
            self._dense(sums, np.asarray(x), None if weights is None else mass, weighed)
        sums.y[:] = weighed.sum(axis=0)
        sums.yy[:] = (weighed * targets).sum(axis=0)
        np.negative(out, out=out)
        if ready is not None:
            ready(slice(0, self.size))
        return 0.0, float(mass.sum())

    def _dense(self, sums: Sums, x: Array, mass: Array | None, weighed: Array) -> None:
        rows = x.astype(np.float64)
        if len(self._x_shift):
            rows -= self._x_shift
        np.matmul(rows.T, weighed, out=sums.xy)
        sums.x[:] = rows.sum(axis=0) if mass is None else mass @ rows
        if mass is not None:
            rows *= np.sqrt(mass)[:, None]
        np.matmul(rows.T, rows, out=sums.xx)

    def _sparse(self, sums: Sums, x: CSR, mass: Array, weighed: Array) -> None:
        rows = x.astype(np.float64)
        sums.xy[:] = rows.T @ weighed
        sums.x[:] = rows.T @ mass
        rows.data *= np.repeat(np.sqrt(mass), np.diff(rows.indptr))
        sums.xx[:] = (rows.T @ rows).toarray()  # type: ignore[operator, attr-defined]  # SciPy's

    def statistics(self, w: Array, x: Matrix, y: Array, weights: Array | None = None) -> Array:
        """Return the weight of the rows: there is no loss."""
        return np.array([float(len(y) if weights is None else weights.sum())])

    def summarise(self, totals: Array) -> tuple[float, float]:
        """Return NaN: there is nothing to evaluate."""
        return float("nan"), float("nan")

    def predict(self, w: Array, x: Matrix) -> Array:
        """Refuse: moments predict nothing."""
        raise TypeError("moments of the rows predict nothing: solve their normal equations")
