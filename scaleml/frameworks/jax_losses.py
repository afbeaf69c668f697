"""Losses for JAX: by name, as PyTorch defines them, or any function of outputs and targets; summed over rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, final

import jax
import jax.numpy as jnp

from scaleml.frameworks.loss import Loss
from scaleml.frameworks.objective import LINKS, LOSSES, canonical_name
from scaleml.frameworks.scorer import IGNORED

__all__ = ["JaxLoss", "LossLike"]

LossLike = str | Callable[[Any, Any], Any]
"""A loss's name, or a function of outputs and targets."""


def _nll(log: Any, y: Any, ignored: int) -> Any:
    """Return minus the logarithms of the probabilities of the classes, which are the last axis; NaN for a class that there is not."""
    counts = y != ignored
    index = jnp.where(counts, y, 0)
    picked = jnp.take_along_axis(log, index[..., None], axis=-1)[..., 0]  # NaN beyond the last class
    picked = jnp.where(index < 0, jnp.nan, picked)
    return jnp.where(counts, -picked, 0)


def _cross_entropy(scores: Any, y: Any, ignored: int) -> Any:
    return _nll(jax.nn.log_softmax(scores, axis=-1), y, ignored)


def _binary_cross_entropy(scores: Any, y: Any) -> Any:
    return jnp.maximum(scores, 0) - scores * y + jnp.log1p(jnp.exp(-jnp.abs(scores)))


def _huber(outputs: Any, y: Any, delta: float = 1.0) -> Any:
    far = jnp.abs(outputs - y)
    return jnp.where(far < delta, 0.5 * far**2, delta * (far - 0.5 * delta))


_FUNCTIONS: Final[dict[str, Callable[..., Any]]] = {
    "cross_entropy": _cross_entropy,
    "nll": _nll,
    "binary_cross_entropy": _binary_cross_entropy,
    "mse": lambda outputs, y: (outputs - y) ** 2,
    "l1": lambda outputs, y: jnp.abs(outputs - y),
    "huber": _huber,
    "smooth_l1": _huber,
}
"""Of each item of the targets. With the settings that they have here, PyTorch's Huber and smooth L1 losses are one."""


@final
@dataclass(frozen=True, eq=False)
class JaxLoss(Loss):
    """A loss of JAX: its function gives one number for each item of the targets, but the user's own whatever it returns; see `Loss`."""

    @staticmethod
    def of(loss: LossLike, settings: Mapping[str, Any] | None = None) -> JaxLoss:
        """Return the loss of that name, or made of a function.

        Raises
        ------
        ValueError, TypeError
            For what is none, with the remedy.
        """
        if isinstance(loss, str):
            name = canonical_name(loss)
            targets = LOSSES[name][0]
            own = {"ignored": IGNORED} if targets == "classes" else {}
            return JaxLoss(f"loss={name!r}", targets, _FUNCTIONS[name], LINKS.get(name), {**own, **(settings or {})})
        if isinstance(loss, type) or not callable(loss):
            kind = f"the class {loss.__name__}" if isinstance(loss, type) else f"a {type(loss).__name__}"
            raise TypeError(
                f"loss is {kind}: must be a name such as 'cross_entropy' or 'mse', or a function of (outputs, targets), such as Optax has"
            )
        if hasattr(loss, "init") and hasattr(loss, "update"):
            raise TypeError(
                "loss is an optimizer of Optax's: JaxModel takes the function and the loss, such as loss='cross_entropy'; the optimizer is "
                "train's, such as scaleml.train(model, X, y, optimizer=scaleml.SGD(0.1))"
            )
        return JaxLoss(f"loss={getattr(loss, '__name__', type(loss).__name__)}", "any", loss)

    @property
    def ignored(self) -> int:
        """The class code of what counts nowhere."""
        return int(self.settings.get("ignored", IGNORED))

    def total(self, output: Any, target: Any, weights: Any) -> tuple[Any, Any]:
        """Return the weighted sum of the rows' losses, and what it is to be divided by for their mean.

        A row's loss is the mean over its targets that count.

        Parameters
        ----------
        output : array of shape (n, ...), or what else a function returns, for a loss of the user's
        target : array of shape (n, ...)
        weights : array of shape (n,) or None

        Raises
        ------
        ValueError
            There are weights, but no loss of each row.
        """
        rows = len(target)
        if self.targets == "any":
            return self._of_any(output, target, weights)
        if self.targets == "classes":
            output = jnp.moveaxis(output, self.axis, -1)
            counts = target != self.ignored
        else:
            output = output.reshape(target.shape)  # (n, 1) beside (n,) is never broadcast
            counts = jnp.ones(target.shape, bool)
        items = target.size // rows
        each = self.function(output, target, **self.settings).reshape(rows, -1).sum(1)
        mass = counts.reshape(rows, -1).sum(1).astype(each.dtype)
        if weights is not None:
            each, mass = each * weights, mass * weights
        return each.sum() / items, mass.sum() / items
