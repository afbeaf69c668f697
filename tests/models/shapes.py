"""A flat model of rows of any shape: a linear model of pixels, of numbers, of how often a row has each token, or of all inputs together."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from scaleml.models import Model, Signature

VOCABULARY = 12


@dataclass(frozen=True)
class Shapes(Model):
    """Softmax regression of labels, or least squares of values of any shape."""

    loss: str = "log_loss"
    dtype: str = "float32"
    augment: tuple[Any, ...] = ()
    class_weight: Any = field(default=None)  # type: ignore[assignment]
    takes_any_shape: ClassVar[bool] = True

    @property
    def is_classifier(self) -> bool:
        return self.loss == "log_loss"

    def build(self, signature: Signature) -> FlatShapes:
        assert signature.row is not None
        width = features_of(signature.no_rows(), signature.dtype).shape[1]
        outputs = max(2, signature.n_outputs) if signature.target is None else signature.n_outputs
        return FlatShapes(width, outputs, np.dtype(self.dtype), signature)


def features_of(x: np.ndarray, dtype: Any) -> np.ndarray:
    """Return (n, features) of rows of one or several inputs."""
    if x.dtype.names:
        return np.concatenate([features_of(x[name], dtype) for name in x.dtype.names], axis=1)
    flat = x.reshape(len(x), int(np.prod(x.shape[1:])))
    if x.dtype.kind == "f":
        assert x.dtype == dtype, "floats come in the model's dtype"
        return flat
    if x.dtype == np.uint8:
        return (flat / 255).astype(dtype)
    return (flat[:, :, None] == np.arange(VOCABULARY)).sum(axis=1).astype(dtype)


def values_of(y: np.ndarray) -> np.ndarray:
    """Return (n, values) of targets of any shape."""
    parts = [y[name] for name in y.dtype.names] if y.dtype.names else [y]
    return np.concatenate([part.reshape(len(y), int(np.prod(part.shape[1:]))) for part in parts], axis=1)


@dataclass
class FlatShapes:
    """A matrix (features, outputs)."""

    width: int
    outputs: int
    dtype: np.dtype
    signature: Signature

    @property
    def size(self) -> int:
        return self.width * self.outputs

    def init(self, seed: int) -> np.ndarray:
        return np.zeros(self.size, self.dtype)

    def loss_grad(self, w, x, y, weights, out, ready=None):
        features, mass = features_of(x, self.dtype), np.ones(len(y), self.dtype) if weights is None else weights
        losses, slopes = self._losses(features @ w.reshape(self.width, self.outputs), y)
        out[:] = (features.T @ (slopes * mass[:, None])).ravel()
        if ready is not None:
            ready(slice(0, self.size))
        return float(mass @ losses), float(mass.sum())

    def _losses(self, scores, y):
        if self.signature.target is not None:
            away = scores - values_of(y)
            return 0.5 * (away * away).sum(axis=1), away.astype(self.dtype)
        codes = np.arange(len(y)), y.astype(int)
        shifted = scores - scores.max(axis=1, keepdims=True) if len(y) else scores
        log_sum = np.log(np.exp(shifted).sum(axis=1))
        slopes = np.exp(shifted - log_sum[:, None])
        slopes[codes] -= 1
        return log_sum - shifted[codes], slopes

    def statistics(self, w, x, y, weights=None):
        mass = np.ones(len(y)) if weights is None else weights.astype("f8")
        losses, _ = self._losses(self.scores(w, x), y)
        right = np.zeros(len(y)) if self.signature.target is not None else (self.predict(w, x) == y) * 1.0
        return np.array([mass @ losses, mass.sum(), mass @ right])

    def summarise(self, totals):
        loss, mass, right = totals.tolist()
        return (loss / mass, right / mass) if mass else (np.nan, np.nan)

    def scores(self, w, x):
        return features_of(x, self.dtype) @ w.reshape(self.width, self.outputs)

    def predict_proba(self, w, x):
        odds = np.exp(self.scores(w, x))
        return odds / odds.sum(axis=1, keepdims=True)

    def predict(self, w, x):
        scores = self.scores(w, x)
        return scores if self.signature.target is not None else scores.argmax(axis=1).astype(np.int32)
