"""Losses of Keras models: by scaleml's names, of scores; by Keras's, of probabilities; Keras's own objects and functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, final

from scaleml.frameworks.keras_backend import loaded
from scaleml.frameworks.objective import LOSSES, Targets, canonical_name

__all__ = ["KerasLoss", "LossLike"]

LossLike = str | Callable[[Any, Any], Any]
"""A loss's name, a loss of Keras's, or a function of (y_true, y_pred)."""

_OF_PROBABILITIES: Final = {
    "sparse_categorical_crossentropy": "cross_entropy",
    "categorical_crossentropy": "cross_entropy",
    "binary_crossentropy": "binary_cross_entropy",
}
"""What Keras calls its losses of probabilities, and what they are of scores."""


@final
@dataclass(frozen=True, eq=False)
class KerasLoss:
    """A loss of a Keras model.

    Parameters
    ----------
    label : str
        In words, for errors.
    name : str or None
        One of `LOSSES`; None for a function of the user's.
    probabilities : bool
        Whether outputs are probabilities, of which the name's scores have to be made first.
    function : callable or None
        Of (outputs, targets), where there is no name.
    delta : float
        Of a Huber loss.
    """

    label: str
    name: str | None
    probabilities: bool = False
    function: Callable[[Any, Any], Any] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    @staticmethod
    def of(loss: LossLike) -> KerasLoss:
        """Return the loss of that name, or made of what Keras has, or of a function of (y_true, y_pred).

        Raises
        ------
        ValueError, TypeError
            For what is none, with the remedy.
        """
        losses = loaded().losses
        if isinstance(loss, str):
            return _named(loss)
        if isinstance(loss, type):
            raise TypeError(f"loss={loss.__name__} is a class: call it, {loss.__name__}()")
        if isinstance(loss, loaded().optimizers.Optimizer):
            raise TypeError(
                "loss is an optimizer of Keras's: KerasModel takes the model and the loss, such as loss='cross_entropy'; the optimizer is "
                "train's, such as scaleml.train(model, X, y, optimizer=scaleml.SGD(0.1))"
            )
        if isinstance(loss, losses.Loss):
            return _of_object(loss)
        if not callable(loss):
            raise TypeError(
                f"loss is a {type(loss).__name__}: must be a name such as 'cross_entropy' or 'mse', a loss of keras.losses, or a function "
                "of (y_true, y_pred); of a model of several outputs a function of all"
            )
        name = getattr(loss, "__name__", "")
        if getattr(losses, name, None) is loss:
            return _named(name)
        return _of_function(f"loss={name or type(loss).__name__}", loss)

    @property
    def targets(self) -> Targets:
        """What it is for."""
        return "any" if self.name is None else LOSSES[self.name][0]

    def same_as(self, other: KerasLoss) -> bool:
        """Return whether two losses are one."""
        mine, theirs = ((one.name, one.probabilities, dict(one.settings)) for one in (self, other))
        return (
            mine == theirs and self.label.partition("=")[2] == other.label.partition("=")[2]
            if self.name is None
            else mine == theirs
        )


def _named(loss: str) -> KerasLoss:
    if loss in _OF_PROBABILITIES:
        return KerasLoss(f"loss={loss!r}", _OF_PROBABILITIES[loss], probabilities=True)
    try:
        name = canonical_name(loss)
    except ValueError as error:
        try:
            function = loaded().losses.get(loss)
        except Exception:  # noqa: BLE001  it has no such loss either: ours says what there is
            raise error from None
        return (
            _of_object(function)
            if isinstance(function, loaded().losses.Loss)
            else _of_function(f"loss={loss!r}", function)
        )
    return KerasLoss(f"loss={loss!r}", name)


def _of_object(loss: Any) -> KerasLoss:
    losses, kind = loaded().losses, type(loss)
    label, config = f"loss={kind.__name__}()", _config(loss)
    if config.get("reduction") == "sum":
        raise ValueError(
            f"{label} with reduction='sum': ranks sum over rows themselves and divide by all rows of a batch; leave reduction out"
        )
    if kind in (losses.MeanSquaredError, losses.MeanAbsoluteError):
        return KerasLoss(label, "mse" if kind is losses.MeanSquaredError else "l1")
    if kind is losses.Huber:
        return KerasLoss(label, "huber", settings={"delta": float(config.get("delta", 1.0))})
    crossed = {
        losses.SparseCategoricalCrossentropy: "cross_entropy",
        losses.CategoricalCrossentropy: "cross_entropy",
        losses.BinaryCrossentropy: "binary_cross_entropy",
    }
    if kind in crossed and not config.get("label_smoothing") and config.get("axis", -1) == -1:
        ignored = config.get("ignore_class")
        settings = {} if ignored is None else {"ignored": int(ignored)}
        return KerasLoss(label, crossed[kind], not config["from_logits"], settings=settings)
    if kind in crossed:
        raise ValueError(
            f"{label} has settings that are not known here ({config}): pass a function of (y_true, y_pred) that returns a loss for each row"
        )
    return _of_function(label, loss.call)


def _config(loss: Any) -> dict[str, Any]:
    config = dict(loss.get_config())
    return {**getattr(loss, "_fn_kwargs", {}), **config}


def _of_function(label: str, loss: Callable[[Any, Any], Any]) -> KerasLoss:
    return KerasLoss(label, None, function=Swapped(loss))


@final
@dataclass(frozen=True)
class Swapped:
    """A function of (y_true, y_pred), as Keras's are, as one of (outputs, targets)."""

    loss: Callable[[Any, Any], Any]

    def __call__(self, outputs: Any, targets: Any) -> Any:
        return self.loss(targets, outputs)
