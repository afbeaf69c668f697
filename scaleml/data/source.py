"""Sources: what a user has, as X, y and weights. Of all kinds the same is known, whether rows are here or on workers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Protocol

import numpy as np

from scaleml import arrays
from scaleml.arrays import Array, Matrix
from scaleml.data.column_sizes import ColumnSizes
from scaleml.data.columns import as_column, as_matrix, as_targets, as_weights, cast_finite, names_of, refuse_no_weight
from scaleml.data.labels import encode_labels
from scaleml.data.row_dtype import Row

Task = Literal["binary", "multiclass", "regression"]


class Source(Protocol):
    """What is known of data, wherever its rows are: of arrays at once, of a Dask collection after the pass over it.

    Attributes
    ----------
    rows : int
        Rows to train on.
    features : int
        Columns of X.
    is_sparse : bool
        Whether X is CSR.
    dtype : str
        Of X.
    classes : (k,) array or None
        The labels, sorted; None for numbers.
    task : {"binary", "multiclass", "regression"}
        How a model sees y.
    n_outputs : int
        Columns of a model's scores.
    mean_weight : float
        Mean weight of the rows.
    filled : int array or None
        The columns of CSR data that hold anything, sorted; None where that is most of them, and for dense data.
    sizes : ColumnSizes or None
        How large the values of each column of dense X are.
    names : tuple or None
        Of the columns, where X is a table.
    brightest : int
        The largest number in what may be images, of some rows; 0 where nothing may be one.
    row, target : numpy.dtype or None
        Of one row of X and of y, where the model takes rows of any shape; None for those of a table, and the target for labels.
    """

    @property
    def rows(self) -> int: ...
    @property
    def features(self) -> int: ...
    @property
    def is_sparse(self) -> bool: ...
    @property
    def dtype(self) -> str: ...
    @property
    def classes(self) -> Array | None: ...
    @property
    def task(self) -> Task: ...
    @property
    def n_outputs(self) -> int: ...
    @property
    def mean_weight(self) -> float: ...
    @property
    def filled(self) -> Array | None: ...
    @property
    def sizes(self) -> ColumnSizes | None: ...
    @property
    def names(self) -> tuple[object, ...] | None: ...
    @property
    def brightest(self) -> int: ...
    @property
    def row(self) -> Row | None: ...
    @property
    def target(self) -> Row | None: ...


def task_of(classes: Array | None) -> Task:
    """Return how a model sees y that has these classes, None for numbers."""
    if classes is None:
        return "regression"
    return "binary" if len(classes) == 2 else "multiclass"


def outputs_of(classes: Array | None, targets: int) -> int:
    """Return the columns of a model's scores: of classes, or of so many targets (0 for a y of one dimension)."""
    if classes is None:
        return max(1, targets)
    return 1 if len(classes) == 2 else len(classes)


@dataclass(frozen=True)
class ArraySource:
    """Arrays of this process: ``x`` as given (dense or CSR, not copied), ``y`` encoded, ``classes`` as the user named them.

    Parameters
    ----------
    x : (n, features) array or CSR matrix
        Any real dtype; values are checked when they are copied to the workers.
    y : (n,) or (n, targets) array
        Class codes, 0 or 1 for two classes, or real targets.
    weights : (n,) array or None
        Sample weights.
    classes : array or None
        Sorted class labels; None for regression.
    names : tuple or None
        Of the columns of X, where they have some.
    """

    x: Matrix
    y: Array
    weights: Array | None
    classes: Array | None
    names: tuple[object, ...] | None = None

    brightest: ClassVar[int] = 0
    row: ClassVar[None] = None
    target: ClassVar[None] = None

    @property
    def rows(self) -> int:
        """Number of rows."""
        return int(self.x.shape[0])

    @property
    def features(self) -> int:
        """Columns of X."""
        return int(self.x.shape[1])

    @property
    def is_sparse(self) -> bool:
        """Whether X is CSR."""
        return arrays.is_sparse(self.x)

    @property
    def dtype(self) -> str:
        """Of X."""
        return str(self.x.dtype.name)

    @property
    def mean_weight(self) -> float:
        """Mean weight of the rows."""
        return 1.0 if self.weights is None else float(self.weights.mean())

    @property
    def task(self) -> Task:
        """``"binary"``, ``"multiclass"`` or ``"regression"``."""
        return task_of(self.classes)

    @property
    def n_outputs(self) -> int:
        """Columns of a model's scores."""
        return outputs_of(self.classes, 0 if self.y.ndim == 1 else int(self.y.shape[1]))

    @property
    def codes(self) -> Array:
        """The codes of labels, (n,)."""
        return self.y

    @property
    def filled(self) -> Array | None:
        """The columns of CSR data that hold anything, sorted; None where that is most of them, and for dense data."""
        return arrays.filled_columns(self.x) if arrays.is_sparse(self.x) else None

    @property
    def sizes(self) -> ColumnSizes | None:
        """Of the columns of dense X: of rows spread over all of it."""
        return ColumnSizes.of(self.x, np.arange(0, self.rows, max(1, self.rows // 1024)))

    def only(self, columns: Array) -> ArraySource:
        """Return the same rows, which are CSR, with some of their columns, numbered anew."""
        assert arrays.is_sparse(self.x), "columns of dense data are all there"
        names = None if self.names is None else tuple(self.names[column] for column in columns)
        return replace(self, x=arrays.only_columns(self.x, columns), names=names)

    def weighed(self, factors: Array) -> ArraySource:
        """Return the same rows, whose weights are multiplied by the factors (k,) of their classes."""
        own = factors[self.y.astype(np.int64)]
        return replace(self, weights=own if self.weights is None else own * self.weights)

    def encode(self, dtype: str) -> Array:
        """Return y as the ranks want it: floats of ``dtype``, or int32 codes for three classes and more."""
        return self.y.astype(np.int32) if self.task == "multiclass" else cast_finite(self.y, dtype, "y")

    def encode_weights(self, dtype: str) -> Array | None:
        """Return the weights as floats of ``dtype``, or None."""
        return None if self.weights is None else cast_finite(self.weights, dtype, "sample_weight")


def array_source(
    X: object,
    y: object,
    sample_weight: object = None,
    *,
    classifier: bool,
    classes: Array | None = None,
    name: str = "X",
    label: str = "y",
    whole: bool = True,
) -> ArraySource:
    """Check the kind and the shapes of the data and encode the target.

    Parameters
    ----------
    X : array-like or sparse matrix of shape (n, features)
        Dense data or CSR (other sparse formats are converted).
    y : array-like of shape (n,) or (n, targets)
        Labels or real targets.
    sample_weight : array-like of shape (n,), optional
        Weights, not negative.
    classifier : bool
        Whether y holds labels.
    classes : array, optional
        The classes known from training; labels outside them are refused.
    name, label : str
        How the errors call X and y.
    whole : bool
        Whether these are all the rows, of which one must count.

    Raises
    ------
    ValueError, TypeError
        With the value, the rule and the remedy.
    """
    x = as_matrix(X, name)
    n = int(x.shape[0])
    if y is None:
        raise ValueError(f"{label} is None, but {name} has {n} rows: pass one label or target a row")
    column = as_column(y, label, n, name)
    if classifier:
        codes, classes = encode_labels(column, classes, label)
    else:
        codes, classes = as_targets(column, label), None
    weights = None
    if sample_weight is not None:
        weights = as_weights(as_column(sample_weight, "sample_weight", n, name))
        refuse_no_weight(not whole or bool(weights.any()))
    return ArraySource(x, codes, weights, classes, names_of(X))
