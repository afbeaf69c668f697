"""Loss names: from scikit-learn's name of a loss to the loss, for a task."""

from __future__ import annotations

from collections.abc import Callable

from scaleml.models.losses import (
    CLASSES,
    BinaryLog,
    EpsilonInsensitive,
    Hinge,
    Huber,
    Loss,
    Softmax,
    Squared,
    SquaredEpsilonInsensitive,
)

__all__ = ["make_loss"]


def make_loss(name: str, task: str, epsilon: float = 0.1, multiclass: str = "softmax") -> Loss:
    """Return the loss of this name for this task."""
    if name == "binary_log_loss" or (name == "log_loss" and task == "binary"):
        return BinaryLog()
    if name == "log_loss" and multiclass == "softmax":
        return Softmax()
    if name == "hinge":
        return Hinge()
    if name in CLASSES:
        from scaleml.models.margins import make_margin

        return make_margin(name)
    if name == "squared_error":
        return Squared()
    kinds: dict[str, Callable[[float], Loss]] = {
        "huber": Huber,
        "epsilon_insensitive": EpsilonInsensitive,
        "squared_epsilon_insensitive": SquaredEpsilonInsensitive,
    }
    return kinds[name](epsilon)
