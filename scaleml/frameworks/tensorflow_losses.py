"""Losses of TensorFlow for Keras models: by name, or any function; summed over rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, final

from scaleml.frameworks.keras_backend import loaded
from scaleml.frameworks.keras_losses import KerasLoss
from scaleml.frameworks.loss import Loss, Reduction, reduction_of
from scaleml.frameworks.objective import LINKS, LOSSES
from scaleml.frameworks.scorer import IGNORED
from scaleml.frameworks.tensorflow_loaded import tf

__all__ = ["TensorflowLoss", "reduction"]


def _nll(log: Any, y: Any, ignored: int) -> Any:
    counts = y != ignored
    picked = tf.gather(log, tf.where(counts, y, 0), axis=-1, batch_dims=y.shape.rank)
    return tf.where(counts, -picked, 0)


def _huber(outputs: Any, y: Any, delta: float = 1.0) -> Any:
    far = tf.abs(outputs - y)
    return tf.where(far < delta, 0.5 * far**2, delta * (far - 0.5 * delta))


_FUNCTIONS: Final[dict[str, Callable[..., Any]]] = {
    "cross_entropy": lambda outputs, y, ignored: _nll(tf.nn.log_softmax(outputs), y, ignored),
    "nll": _nll,
    "binary_cross_entropy": lambda outputs, y: tf.nn.sigmoid_cross_entropy_with_logits(labels=y, logits=outputs),
    "mse": lambda outputs, y: (outputs - y) ** 2,
    "l1": lambda outputs, y: tf.abs(outputs - y),
    "huber": _huber,
    "smooth_l1": _huber,
}
"""Of each item of the targets."""


@final
@dataclass(frozen=True, eq=False)
class TensorflowLoss(Loss):
    """A loss of TensorFlow: its function gives one number for each item of the targets, but the user's own whatever it returns."""

    @staticmethod
    def of(loss: KerasLoss) -> TensorflowLoss:
        """Return what a Keras model's loss is here."""
        if loss.name is None:
            assert loss.function is not None
            return TensorflowLoss(loss.label, "any", loss.function)
        name = "nll" if loss.probabilities and loss.targets == "classes" else loss.name
        settings: Mapping[str, Any] = {**({"ignored": IGNORED} if loss.targets == "classes" else {}), **loss.settings}
        return TensorflowLoss(loss.label, LOSSES[name][0], _FUNCTIONS[name], LINKS.get(name), settings)

    @property
    def ignored(self) -> int:
        """The class code of what counts nowhere."""
        return int(self.settings.get("ignored", IGNORED))

    def total(self, output: Any, target: Any, weights: Any) -> tuple[Any, Any]:
        """Return the weighted sum of the rows' losses, and what it is to be divided by for their mean.

        A row's loss is the mean over its targets that count.
        """
        if self.targets == "any":
            return self._of_any(output, target, weights)
        rows, items = target.shape[0], target.shape[1:].num_elements()
        if self.targets == "classes":
            output = loaded().ops.moveaxis(output, self.axis, -1)
            counts = tf.cast(target != self.ignored, output.dtype)
        else:
            output = tf.reshape(output, target.shape)  # (n, 1) beside (n,) is never broadcast
            counts = tf.ones_like(output)
        each = tf.reduce_sum(tf.reshape(self.function(output, target, **self.settings), (rows, -1)), axis=1)
        mass = tf.reduce_sum(tf.reshape(counts, (rows, -1)), axis=1)
        if weights is not None:
            each, mass = each * weights, mass * weights
        return tf.reduce_sum(each) / items, tf.reduce_sum(mass) / items

    @staticmethod
    def _sum(array: Any) -> Any:
        return tf.reduce_sum(array)


def reduction(loss: TensorflowLoss, output: Any, y: Any) -> Reduction:
    """Return what a function of the user's gives: one number a row, or else found by calling it on parts of the rows."""
    rows = y.shape[0]

    def value(part: slice) -> Any:
        try:
            return loss.function(tf.nest.map_structure(lambda one: one[part], output), y[part])
        except Exception as error:
            raise ValueError(
                f"{loss.name} cannot take the outputs and targets of shape {tuple(y.shape)} ({type(error).__name__}: {error})"
            ) from error

    whole = value(slice(0, rows))
    if not tf.is_tensor(whole) or not whole.dtype.is_floating:
        raise ValueError(f"{loss.name} returns a {type(whole).__name__}: return a tensor of floats, for its gradient")
    if whole.shape.rank:
        if tuple(whole.shape) == (rows,):
            return "rows"
        raise ValueError(
            f"{loss.name} returns shape {tuple(whole.shape)} for {rows} rows: return one number, the mean over the rows, or one a row; "
            "outputs of shape (rows, 1) and targets of shape (rows,) are broadcast, use y_pred[:, 0]"
        )
    found = reduction_of(lambda part: float(value(part)), rows)
    if found is None and tf.is_tensor(output) and tuple(output.shape[1:]) == (1,) and y.shape.rank == 1:
        raise ValueError(
            f"{loss.name} is no mean over the rows: outputs have shape (rows, 1) and targets (rows,), which broadcast to (rows, rows); use "
            "y_pred[:, 0]"
        )
    return found or "mean"
