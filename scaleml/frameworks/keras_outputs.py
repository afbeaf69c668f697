"""What the outputs of a Keras model are: scores, or probabilities, of which scores are made; checked before anything is placed."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from scaleml.frameworks.inputs import trial_rows
from scaleml.frameworks.keras_backend import loaded
from scaleml.frameworks.keras_losses import KerasLoss
from scaleml.frameworks.keras_recipe import Recipe, array_of, shown
from scaleml.models.base import Signature

__all__ = ["check_outputs", "scores"]

_SMALLEST: Final = 1e-7
"""Keras's own: no probability counts as less."""


def scores(output: Any, loss: KerasLoss) -> Any:
    """Return outputs as the loss wants them: logarithms of probabilities of classes, scores (logits) of those of labels.

    Parameters
    ----------
    output : tensor of the backend
    loss : KerasLoss
    """
    if not loss.probabilities:
        return output
    ops = loaded().ops
    if loss.targets == "classes":
        return ops.log(ops.maximum(output, _SMALLEST))
    inside = ops.clip(output, _SMALLEST, 1 - _SMALLEST)
    return ops.log(inside) - ops.log1p(-inside)


def check_outputs(model: Any, recipe: Recipe, loss: KerasLoss, signature: Signature) -> None:
    """Call a model on made-up rows; raise ValueError where it cannot take them, or its outputs are not what the loss is of."""
    if not recipe.names:
        raise ValueError(f"{recipe.label} has nothing to train: set trainable=True on layers that are to be trained")
    recipe.check_travels(loss=loss)
    try:
        output = model(recipe.given(trial_rows(signature, 5)), training=False)
    except Exception as error:
        row = signature.row
        shape = (signature.n_features,) if row is None else f"{row}"
        raise ValueError(
            f"{recipe.label} does not take these rows ({shown(error)}): a row of X has shape {shape}, the first variable is "
            f"{recipe.names[0]} of shape {recipe.shapes[0]}. Give X the shape and dtype that it wants."
        ) from error
    if model.losses:
        raise ValueError(
            f"{recipe.label} has layers that add losses of their own (regularizers, add_loss), which ranks do not add: leave them out; an "
            "optimizer's weight decay does what an L2 regularizer does"
        )
    if loss.name is None or isinstance(output, dict | list | tuple):
        return
    found = array_of(output)
    classes = loss.targets == "classes"
    inside = bool(found.size) and bool(((found >= 0) & (found <= 1)).all())
    sums = inside and found.ndim > 1 and found.shape[-1] > 1 and bool(np.allclose(found.sum(axis=-1), 1, atol=1e-3))
    last = _last_activation(model)
    if loss.probabilities and not (sums if classes else inside):
        function = "softmax" if classes else "sigmoid"
        raise ValueError(
            f"{loss.label} is of probabilities, as in Keras, but {recipe.label} returns others than that: give its last layer "
            f"activation={function!r}, or use loss={loss.name!r}, which is of scores (from_logits=True)"
        )
    squashed = (sums and loss.name == "cross_entropy") or (inside and last in ("softmax", "sigmoid"))
    if squashed and not loss.probabilities and loss.targets in ("classes", "labels"):
        other = "sparse_categorical_crossentropy" if classes else "binary_crossentropy"
        raise ValueError(
            f"{loss.label} is of scores (logits), but {recipe.label} returns probabilities, by its {last or 'softmax'}: use "
            f"loss={other!r}, Keras's own, or leave out the last activation"
        )


def _last_activation(model: Any) -> str:
    """Return the name of the last layer's activation, where a model has one."""
    layers = getattr(model, "layers", None) or [None]
    last = layers[-1]
    if type(last).__name__ == "Softmax":
        return "softmax"
    return str(getattr(getattr(last, "activation", None), "__name__", ""))
