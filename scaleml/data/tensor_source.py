"""The source that arrays of any shape are: not copied, values checked when they are written to files."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Required, TypedDict, final

import numpy as np

from scaleml.arrays import Array
from scaleml.data.column_sizes import ColumnSizes
from scaleml.data.columns import as_column, as_weights, cast_finite, names_of, refuse_no_weight
from scaleml.data.labels import encode_labels
from scaleml.data.pixels import brightest
from scaleml.data.row_dtype import Row
from scaleml.data.source import ArraySource, Task, outputs_of, task_of
from scaleml.data.tensors import Tensors, as_tensors, plain_array, several_of


@final
@dataclass(frozen=True)
class TensorSource:
    """Arrays of this process whose rows have any shape; see `scaleml.data.source.Source`.

    Parameters
    ----------
    x : Tensors
        As given, not copied.
    y : Tensors or (n,) array
        Values of any shape, or the codes of labels.
    weights : (n,) array or None
        Sample weights.
    classes : array or None
        Sorted class labels; None for values.
    names : tuple or None
        Of the columns of X, where it is a frame.
    """

    x: Tensors
    y: Tensors | Array
    weights: Array | None
    classes: Array | None
    names: tuple[object, ...] | None = None

    is_sparse: ClassVar[bool] = False
    filled: ClassVar[None] = None

    @property
    def sizes(self) -> ColumnSizes | None:
        """Of the columns, where X is a table of floats: of rows spread over all of it."""
        table = self.x.table
        return None if table is None else ColumnSizes.of(table, np.arange(0, self.rows, max(1, self.rows // 1024)))

    @property
    def brightest(self) -> int:
        """The largest number in what may be images, of some rows; see `Source`."""
        return brightest(self.x.parts)

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.x)

    @property
    def features(self) -> int:
        """Numbers in a row of X."""
        return self.x.items

    @property
    def row(self) -> Row:
        """Of one row of X."""
        return self.x.row

    @property
    def target(self) -> Row | None:
        """Of one row of y; None for labels."""
        return self.y.row if isinstance(self.y, Tensors) else None

    @property
    def dtype(self) -> str:
        """Of the first input."""
        return str(next(iter(self.x.parts.values())).dtype.name)

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
        return outputs_of(self.classes, self.y.items if isinstance(self.y, Tensors) else 0)

    @property
    def codes(self) -> Array:
        """The codes of labels, (n,)."""
        assert not isinstance(self.y, Tensors), "values have no codes"
        return self.y

    def weighed(self, factors: Array) -> TensorSource:
        """Return the same rows, whose weights are multiplied by the factors (k,) of their classes."""
        own = factors[self.codes.astype(np.int64)]
        return replace(self, weights=own if self.weights is None else own * self.weights)

    def encode(self, dtype: str) -> Tensors | Array:
        """Return y as the ranks want it: values, of which floats come to ``dtype``, or codes."""
        if isinstance(self.y, Tensors):
            return self.y
        return self.y.astype(np.int32 if self.task == "multiclass" else dtype)

    def encode_weights(self, dtype: str) -> Array | None:
        """Return the weights as floats of ``dtype``, or None."""
        return None if self.weights is None else cast_finite(self.weights, dtype, "sample_weight")


LocalSource = ArraySource | TensorSource
"""A source of this process."""


class Known(TypedDict, total=False):
    """What is known of rows of any shape before they are looked at; see `tensor_source`."""

    classifier: Required[bool]
    dtype: Required[str]
    classes: Array | None
    row: Row | None
    target: Row | None
    known: str | None
    name: str
    label: str
    whole: bool


def tensor_source(
    X: object,
    y: object,
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
) -> TensorSource:
    """Check the kind and the shapes of data of any shape, and encode labels.

    Parameters
    ----------
    X, y : array-like of shape (n, ...), or a dict or tuple of such
        See `scaleml.data.tensors.as_tensors`.
    sample_weight : array-like of shape (n,), optional
        Weights, not negative.
    classifier : bool
        Whether y holds labels; integers of two and more dimensions are taken as they are all the same.
    dtype : str
        The model's.
    classes : array, optional
        The classes known from training; labels outside them are refused.
    row, target : numpy.dtype, optional
        Those of training, which these must become.
    known : str, optional
        How errors say where they are known from; default "X has".
    name, label : str
        How the errors call X and y.
    whole : bool
        Whether these are all the rows, of which one must count.

    Raises
    ------
    ValueError, TypeError
        With the value, the rule and the remedy.
    """
    x = as_tensors(X, name, dtype)
    if row is not None:
        x = x.fitted(row, known or "X has")
    n = len(x)
    if y is None:
        raise ValueError(f"{label} is None, but {name} has {n} rows: pass one label or target a row")
    values: Tensors | Array
    if classifier and (classes is not None or (target is None and holds_labels(y, label))):
        values, classes = encode_labels(as_column(plain_array(y), label, n, name), classes, label)
    else:
        values, classes = as_tensors(y, label, dtype), None
        refuse_other_rows(n, len(values), name, label)
        if target is not None:
            values = values.fitted(target, known or "y has")
    weights = None
    if sample_weight is not None:
        weights = as_weights(as_column(plain_array(sample_weight), "sample_weight", n, name))
        refuse_no_weight(not whole or bool(weights.any()))
    return TensorSource(x, values, weights, classes, names_of(X))


def holds_labels(y: object, label: str = "y") -> bool:
    """Whether y of a classifier holds a label a row: integers of two and more dimensions, such as the next tokens, have no classes.

    Raises
    ------
    TypeError
        For several targets, which no classifier has.

    Examples
    --------
    >>> import numpy as np
    >>> holds_labels(np.array(["a", "b"])), holds_labels(np.zeros((2, 5), int)), holds_labels(np.zeros((2, 1), int))
    (True, False, True)
    """
    if several_of(y, label) is not None:
        raise TypeError(f"{label} is a {type(y).__name__}, but a classifier has one label a row: pass one array")
    values = plain_array(y)
    return values.dtype.kind not in "iub" or values.ndim < 2 or values.shape[1:] == (1,)


def refuse_other_rows(n: int, found: int, name: str, label: str) -> None:
    """Raise ValueError unless y has as many rows as X."""
    if found != n:
        raise ValueError(f"{name} has {n} rows but {label} has {found}: they must be the same rows in the same order")
