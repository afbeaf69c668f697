"""A flat model that is no `Network`: logistic regression of plain NumPy, with what the contract asks for and no more."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scaleml.models import Model, Signature


@dataclass(frozen=True)
class Toy(Model):
    """Logistic regression of two classes, without penalty."""

    dtype: str = "float32"
    is_classifier = True

    def build(self, signature: Signature) -> FlatToy:
        return FlatToy(signature.n_features + 1, np.dtype(self.dtype))


@dataclass
class FlatToy:
    """Weights, then the intercept."""

    size: int
    dtype: np.dtype

    def init(self, seed):
        return np.zeros(self.size, self.dtype)

    def loss_grad(self, w, x, y, weights, out, ready=None):
        mass = np.ones(len(y), self.dtype) if weights is None else weights
        margin = (2 * y - 1) * (x @ w[:-1] + w[-1])
        slope = mass * (1 - 2 * y) / (1 + np.exp(margin))
        out[:-1], out[-1] = x.T @ slope, slope.sum()
        if ready is not None:
            ready(slice(0, self.size))
        return float(mass @ np.logaddexp(0, -margin)), float(mass.sum())

    def statistics(self, w, x, y, weights=None):
        mass = np.ones(len(y)) if weights is None else weights.astype("f8")
        margin = (2 * y - 1) * (x @ w[:-1] + w[-1])
        return np.array([mass @ np.logaddexp(0, -margin), mass.sum(), mass @ ((self.predict(w, x) == y) * 1.0)])

    def summarise(self, totals):
        loss, mass, right = totals.tolist()
        return (loss / mass, right / mass) if mass else (np.nan, np.nan)

    def predict(self, w, x):
        return (x @ w[:-1] + w[-1] > 0).astype(np.int32)


@dataclass(frozen=True)
class SureToy(Toy):
    """The same with scores and probabilities."""

    def build(self, signature):
        return FlatSureToy(**vars(super().build(signature)))


class FlatSureToy(FlatToy):
    def scores(self, w, x):
        return x @ w[:-1] + w[-1]

    def predict_proba(self, w, x):
        second = 1 / (1 + np.exp(-self.scores(w, x)))
        return np.stack([1 - second, second], axis=1)
