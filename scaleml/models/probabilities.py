"""Probabilities of classes, from the scores of a model."""

from __future__ import annotations

from scaleml.arrays import Array, namespace
from scaleml.models.losses import BinaryLog, Loss, OwnClass, Softmax
from scaleml.models.margins import LogMargin


def probabilities(loss: Loss, scores: Array, *, several_labels: bool) -> Array:
    """Return probabilities of shape (n, n_classes), or of each label where a row may have several; uses up ``scores``.

    Raises
    ------
    ValueError
        The loss is not ``"log_loss"``.
    """
    xp = namespace(scores)
    own = loss.loss if isinstance(loss, OwnClass) else loss
    if isinstance(own, BinaryLog):
        scores *= 0.5
        second = 0.5 * xp.tanh(scores) + 0.5
        return second if several_labels else xp.stack([1 - second, second], axis=1)
    if isinstance(own, Softmax):
        scores -= scores.max(axis=1, keepdims=True)
        xp.exp(scores, out=scores)
        scores /= scores.sum(axis=1, keepdims=True)
        return scores
    if isinstance(own, LogMargin):
        scores *= 0.5
        each = 0.5 * xp.tanh(scores) + 0.5
        each /= each.sum(axis=1, keepdims=True)
        return each
    name = type(own).__name__
    raise ValueError(f"the loss {name} gives scores, not probabilities: only 'log_loss' does; train with it.")
