"""Predictions of rows of any shape, a few hundred at a time, and the statistics of such."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

import numpy as np

from scaleml.arrays import Array, Matrix
from scaleml.data.dataset_items import ItemFormat
from scaleml.data.dataset_source import dataset_source
from scaleml.data.map_dataset import MapDataset, unwrapped
from scaleml.data.row_dtype import Row, refuse_other_row
from scaleml.data.tensor_source import Known, tensor_source
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


class _Items(NamedTuple):
    """The items of a dataset."""

    data: MapDataset
    form: ItemFormat

    @property
    def rows(self) -> int:
        return len(self.data)

    @property
    def row(self) -> Row:
        return self.form.row

    def inputs(self, part: slice) -> Array:
        return self.form.read_inputs(self.data.dataset, range(self.rows)[part])

    def both(self, part: slice) -> tuple[Array, Array]:
        return self.form.read(self.data.dataset, range(self.rows)[part])


class _Arrays(NamedTuple):
    """Rows of arrays, with values or encoded labels where these are known."""

    x: Tensors
    y: Tensors | Array | None = None

    @property
    def rows(self) -> int:
        return len(self.x)

    @property
    def row(self) -> Row:
        return self.x.row

    def inputs(self, part: slice) -> Array:
        return self.x.take(part)

    def both(self, part: slice) -> tuple[Array, Array]:
        assert self.y is not None, "only X was asked for"
        return self.x.take(part), self.y.take(part) if isinstance(self.y, Tensors) else self.y[part]


def by_parts(model: Trained, predict: Predict, X: object) -> Array:
    """Return what ``predict`` says of the rows of X.

    Raises
    ------
    ValueError, TypeError
        For rows other than those that the model was trained on, with both.
    """
    form = _form(model)
    data, _ = unwrapped(X, None)
    given: _Items | _Arrays
    if isinstance(data, MapDataset):
        refuse_other_row(data.row(model.signature.dtype), form.row, "X", KNOWN)
        given = _Items(data, form)
    else:
        given = _Arrays(as_tensors(data, "X", model.signature.dtype, least=0).fitted(form.row, KNOWN))
    network = model.network.reusing() if isinstance(model.network, Reusing) else copy.copy(model.network)
    found: Array | None = None
    for part in _parts(given):
        said = predict(network, given.inputs(part))
        if found is None:
            found = np.empty((given.rows, *said.shape[1:]), said.dtype)
        found[part] = said
    assert found is not None
    return found


def statistics(model: Trained, X: object, y: object, sample_weight: object) -> Array:
    """Return the summed statistics of rows; see `TrainedModel.statistics`."""
    signature, classes = model.signature, model.classes
    data, y = unwrapped(X, y)
    known: Known = {
        "classifier": classes is not None,
        "dtype": signature.dtype,
        "classes": classes,
        "row": signature.row,
        "target": signature.target,
        "known": KNOWN,
        "whole": False,
    }
    given: _Items | _Arrays
    if isinstance(data, MapDataset):
        items = dataset_source(data, sample_weight, **known)
        given, weights = _Items(data, _form(model)), items.encode_weights(signature.dtype)
    else:
        rows = tensor_source(data, y, sample_weight, **known)
        given, weights = _Arrays(rows.x, rows.encode(signature.dtype)), rows.encode_weights(signature.dtype)
    sums = [
        model.network.statistics(model.params, *given.both(part), None if weights is None else weights[part])
        for part in _parts(given)
    ]
    return np.sum(sums, axis=0)


def _form(model: Trained) -> ItemFormat:
    signature = model.signature
    assert signature.row is not None, "a table has columns"
    codes = "int32" if signature.task == "multiclass" else signature.dtype
    return ItemFormat(signature.row, signature.target, model.classes, codes)


def _parts(given: _Items | _Arrays) -> list[slice]:
    step = max(1, min(_ROWS, _BYTES // max(1, given.row.itemsize)))
    return [slice(start, min(start + step, given.rows)) for start in range(0, max(1, given.rows), step)]
