"""The source that a map-style dataset is: its items stay where they are until ranks read them, again in every epoch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, final

import numpy as np

from scaleml.arrays import Array
from scaleml.data.columns import as_column, as_weights, cast_finite, refuse_no_weight
from scaleml.data.dataset_items import ItemFormat
from scaleml.data.labels import encode_labels
from scaleml.data.map_dataset import MapDataset
from scaleml.data.pixels import brightest
from scaleml.data.row_dtype import Row, in_words, items_of, refuse_other_row
from scaleml.data.source import Task, outputs_of, task_of
from scaleml.data.tensors import plain_array


@final
@dataclass(frozen=True)
class DatasetSource:
    """A dataset; see `scaleml.data.source.Source`.

    Parameters
    ----------
    data : MapDataset
        Its items.
    row : numpy.dtype
        Of a row of X.
    target : numpy.dtype or None
        Of a row of y; None for labels.
    labels : (n,) array or None
        The codes of all labels.
    weights : (n,) array or None
        Sample weights.
    classes : array or None
        Sorted class labels.
    """

    data: MapDataset
    row: Row
    target: Row | None
    labels: Array | None
    weights: Array | None
    classes: Array | None

    is_sparse: ClassVar[bool] = False
    filled: ClassVar[None] = None
    sizes: ClassVar[None] = None
    names: ClassVar[None] = None

    @property
    def brightest(self) -> int:
        """The largest number in the first item, where that may be an image; see `Source`."""
        return brightest(self.data.first_inputs)

    @property
    def rows(self) -> int:
        """Number of items."""
        return len(self.data)

    @property
    def features(self) -> int:
        """Numbers in a row of X."""
        return items_of(self.row)

    @property
    def dtype(self) -> str:
        """Of X, in words."""
        return in_words(self.row)

    @property
    def mean_weight(self) -> float:
        """Mean weight of the rows."""
        return 1.0 if self.weights is None else float(self.weights.mean())

    @property
    def task(self) -> Task:
        """How a model sees y."""
        return task_of(self.classes)

    @property
    def n_outputs(self) -> int:
        """Numbers in a row of y, or the columns of scores of classes."""
        return outputs_of(self.classes, 0 if self.target is None else items_of(self.target))

    @property
    def codes(self) -> Array:
        """The codes of labels, (n,)."""
        assert self.labels is not None, "values have no codes"
        return self.labels

    def weighed(self, factors: Array) -> DatasetSource:
        """Return the same rows, whose weights are multiplied by the factors (k,) of their classes."""
        own = factors[self.codes.astype(np.int64)]
        return replace(self, weights=own if self.weights is None else own * self.weights)

    def encode_weights(self, dtype: str) -> Array | None:
        """Return the weights as floats of ``dtype``, or None."""
        return None if self.weights is None else cast_finite(self.weights, dtype, "sample_weight")

    def form(self, dtype: str) -> ItemFormat:
        """Return what ranks make of the items."""
        return ItemFormat(self.row, self.target, self.classes, "int32" if self.task == "multiclass" else dtype)


def dataset_source(
    data: MapDataset,
    sample_weight: object = None,
    *,
    classifier: bool,
    dtype: str,
    classes: Array | None = None,
    row: Row | None = None,
    target: Row | None = None,
    known: str | None = None,
    name: str = "X",
    label: str = "y",
    whole: bool = True,
) -> DatasetSource:
    """Look at a dataset's first item, and of a classifier at its labels; the parameters are those of ``tensor_source``.

    Raises
    ------
    ValueError, TypeError
        With the value, the rule and the remedy.
    """
    own = data.row(dtype)
    if row is not None:
        refuse_other_row(own, row, name, known or "X has")
    n, codes, values = len(data), None, None
    if classifier and (classes is not None or (target is None and data.has_labels)):
        codes, classes = encode_labels(data.labels, classes, label)
    else:
        values, classes = data.target(dtype), None
        if target is not None:
            refuse_other_row(values, target, label, known or "y has")
            values = target
    weights = None
    if sample_weight is not None:
        weights = as_weights(as_column(plain_array(sample_weight), "sample_weight", n, name))
        refuse_no_weight(not whole or bool(weights.any()))
    return DatasetSource(data, own if row is None else row, values, codes, weights, classes)
