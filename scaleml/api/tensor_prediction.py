"""Predictions of rows of any shape, a few hundred at a time, and the statistics of such."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Final, Protocol

import numpy as np

from scaleml.arrays import Array, Matrix
from scaleml.data.tensor_source import tensor_source
from scaleml.data.tensors import Tensors, as_tensors
from scaleml.models import FlatModel, Signature
from scaleml.models.flat_model import Reusing

_ROWS: Final = 256
"""Rows at a time, fewer where these take more than so many bytes: a model makes many times as many of them."""
_BYTES: Final = 32 << 20
KNOWN: Final = "this model was trained on"

Predict = Callable[[FlatModel, Matrix], Array]
"""From a flat model and rows of X, as it gets them in training, to what is said of them."""


class Trained(Protocol):
    """A `TrainedModel`, as far as this needs it."""

    network: FlatModel
    signature: Signature
    params: Array
    classes: Array | None


def by_parts(model: Trained, predict: Predict, X: object) -> Array:
    """Return what ``predict`` says of the rows of X.

    Raises
    ------
    ValueError, TypeError
        For rows other than those that the model was trained on, with both.
    """
    row = model.signature.row
    assert row is not None, "a table has columns"
    x = as_tensors(X, "X", model.signature.dtype, least=0).fitted(row, KNOWN)
    network = model.network.reusing() if isinstance(model.network, Reusing) else copy.copy(model.network)
    found: Array | None = None
    for part in _parts(x):
        said = predict(network, x.take(part))
        if found is None:
            found = np.empty((len(x), *said.shape[1:]), said.dtype)
        found[part] = said
    assert found is not None
    return found


def statistics(model: Trained, X: object, y: object, sample_weight: object) -> Array:
    """Return the summed statistics of rows; see `TrainedModel.statistics`."""
    signature, classes = model.signature, model.classes
    inputs = tensor_source(
        *(X, y, sample_weight),
        classifier=classes is not None,
        dtype=signature.dtype,
        classes=classes,
        row=signature.row,
        target=signature.target,
        known=KNOWN,
        whole=False,
    )
    targets: Any = inputs.encode(signature.dtype)
    weights = inputs.encode_weights(signature.dtype)
    sums = [
        model.network.statistics(
            model.params,
            inputs.x.take(part),
            targets.take(part) if isinstance(targets, Tensors) else targets[part],
            None if weights is None else weights[part],
        )
        for part in _parts(inputs.x)
    ]
    return np.sum(sums, axis=0)


def _parts(x: Tensors) -> list[slice]:
    step = max(1, min(_ROWS, _BYTES // max(1, x.row.itemsize)))
    return [slice(start, min(start + step, len(x))) for start in range(0, max(1, len(x)), step)]
