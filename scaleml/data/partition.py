"""The pass over one partition of a collection: checked, converted, shuffled and written to a piece, its values read once."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from scaleml import arrays
from scaleml.arrays import Array
from scaleml.data.column_sizes import ColumnSizes
from scaleml.data.columns import as_column, as_matrix, as_targets, as_told, as_weights, cast_finite, names_of
from scaleml.data.labels import check_indicators, local_codes
from scaleml.data.piece import Piece
from scaleml.data.piece_file import PieceFile, size_of
from scaleml.data.row_dtype import Row, in_words
from scaleml.data.row_sample import heaviest_of

SALT: Final = 0x91ECE


@dataclass(frozen=True)
class RowFormat:
    """How a model wants rows to lie in files.

    Parameters
    ----------
    dtype : str
        Of X, weights and real targets.
    classifier : bool
        Whether y holds labels.
    seed : int or None
        Decides the order of the rows; None leaves them as they are, where only all of them together count.
    any_shape : bool
        Whether rows of X, and values of y, may have any shape and dtype.
    """

    dtype: str
    classifier: bool
    seed: int | None
    any_shape: bool = False


@dataclass(frozen=True)
class PassOptions:
    """How every partition of a collection becomes a piece.

    Parameters
    ----------
    token : str
        Names the folder of the pieces.
    dtype : str
        The model's.
    classifier : bool
        Whether y holds labels.
    seed : int or None
        Decides the order of the rows; None leaves them as they are, where only all of them together count.
    fraction : float
        Part of each partition that is held out.
    name : str
        How errors call the data.
    indicators : bool
        Whether y has a column of 0 and 1 for each label.
    columns, targets : tuple or None
        Names of the columns of X, and of a y of several, where they have some.
    any_shape : bool
        Whether rows of X, and values of y, may have any shape and dtype.
    """

    token: str
    dtype: str
    classifier: bool
    seed: int | None
    fraction: float
    name: str
    indicators: bool = False
    columns: tuple[object, ...] | None = None
    targets: tuple[object, ...] | None = None
    any_shape: bool = False


@dataclass(frozen=True)
class PieceSummary:
    """What the pass has found in a partition: plain and small, for it goes to the client.

    Parameters
    ----------
    piece : Piece or None
        Where its rows lie, held-out ones first; None for no rows.
    rows, held : int
        How many rows it has, and how many of them are held out.
    features : int
        Columns of X.
    is_sparse : bool
        Whether X is CSR.
    targets : int
        Columns of y; 0 for a y of one dimension.
    classes : array or None
        Its labels, sorted; y in the file are codes into these.
    counts, mass : (k,) arrays
        Rows and sum of the weights of each of its labels; of a regression's piece, of all rows.
    held_counts, held_mass : (k,) arrays
        The same of its held-out rows alone.
    filled : array or None
        The columns of X that hold anything, sorted; None where that is most of them.
    sizes : ColumnSizes or None
        Of the columns of dense X.
    worker : str
        The Dask worker whose folder the file is in.
    heaviest : (m,) int array or None
        Where in the file the rows to train on are that weigh most; None without weights.
    brightest : int
        The largest number in what may be images, of some rows.
    digest : int
        Of the rows as they lie in the file.
    row, target : numpy.dtype or None
        Of a row of X, and of y that is no label, where they may have any shape.
    """

    piece: Piece | None
    rows: int
    held: int
    features: int
    is_sparse: bool
    targets: int
    classes: Array | None
    counts: Array
    mass: Array
    held_counts: Array
    held_mass: Array
    filled: Array | None = None
    sizes: ColumnSizes | None = None
    worker: str = ""
    heaviest: Array | None = None
    brightest: int = 0
    digest: int = 0
    row: Row | None = None
    target: Row | None = None


def write_partition(
    options: PassOptions,
    index: int,
    first: int | None,
    folder: pathlib.Path,
    partition_x: object,
    partition_y: object,
    partition_weights: object = None,
) -> PieceSummary:
    """Write one partition to a file in ``folder``.

    Parameters
    ----------
    index : int
        Which partition.
    first : int or None
        Number of its first row, if that is known; errors then name rows by their number in the whole.
    partition_x, partition_y, partition_weights
        NumPy, CSR or pandas; the weights may be None.

    Raises
    ------
    ValueError, TypeError
        For values that cannot be trained on, by row and column.
    """
    given_x: Any = partition_x
    given_y: Any = partition_y
    name, target, weight = options.name, "y", "sample_weight"
    if first is None:
        name, target, weight = (f"partition {index} of {what}" for what in (name, target, weight))
        first = 0
    if given_x.shape[0] == 0 and len(given_y) == 0:
        sparse, features = hasattr(given_x, "tocsr"), int(given_x.shape[1])
        none = np.zeros(0)
        return PieceSummary(None, 0, 0, features, sparse, 0, None, none, none, none, none)
    given_x = as_told(given_x, options.columns, f"partition {index} of {options.name}")
    given_y = as_told(given_y, options.targets, f"partition {index} of y")
    refuse_other_length(options.name, index, given_x, "y", given_y)
    if partition_weights is not None:
        refuse_other_length(options.name, index, given_x, "sample_weight", partition_weights)
    x = as_matrix(given_x, name)
    n = int(x.shape[0])
    y = as_column(given_y, target, n, name)
    classes, w = None, None
    if options.classifier:
        y, classes = local_codes(y, target, first)
    else:
        if options.indicators:
            check_indicators(y, target, first)
        y = cast_finite(as_targets(y, target, first), options.dtype, target, first)
    if partition_weights is not None:
        w = as_weights(as_column(partition_weights, weight, n, name), weight, first)
        w = cast_finite(w, options.dtype, weight, first)
    chance = np.random.default_rng([options.seed or 0, SALT, index])
    order = np.arange(n) if options.seed is None else chance.permutation(n)
    held = int(n * options.fraction + chance.random())  # on average the fraction, however small the partitions
    file = PieceFile(size_of(x, y, w is not None, order, options.dtype), folder)
    try:
        piece = file.write_rows(x, y, w, order, options.dtype, name, first, names_of(given_x))
        file.seal(options.token.encode())
    except BaseException:
        file.close()
        raise
    file.detach()
    labels = np.zeros(n, np.int32) if classes is None else y
    counts, mass = tally(labels, w, slice(None), 0)
    held_counts, held_mass = tally(labels, w, order[:held], len(counts))
    sparse = arrays.is_sparse(x)
    return PieceSummary(
        piece,
        n,
        held,
        int(x.shape[1]),
        sparse,
        targets=0 if y.ndim == 1 else int(y.shape[1]),
        classes=classes,
        counts=counts,
        mass=mass,
        held_counts=held_counts,
        held_mass=held_mass,
        filled=arrays.filled_columns(x) if arrays.is_sparse(x) else None,
        sizes=ColumnSizes.of(x, order),
        digest=file.digest.value,
        heaviest=None if w is None else held + heaviest_of(w[order[held:]]),
    )


def tally(labels: Array, w: Array | None, rows: Any, least: int) -> tuple[Array, Array]:
    """Return how many of these rows each label has, and the sums of their weights."""
    counts = np.bincount(labels[rows], minlength=least)
    weights = None if w is None else w[rows].astype(np.float64)
    return counts, np.bincount(labels[rows], weights, least).astype(np.float64)


def check_summaries(summaries: Sequence[PieceSummary], name: str) -> None:
    """Raise ValueError for partitions that do not belong together, or in which no row counts."""
    full = [summary for summary in summaries if summary.rows]
    if not full:
        raise ValueError(f"{name} has no rows in any of its {len(summaries)} partitions: at least one is needed")
    widths = sorted({summary.features for summary in full})
    if len(widths) > 1 and full[0].row is None:
        raise ValueError(f"the partitions of {name} have {widths} columns: all must have the same")
    for what, rows in (("X", {each.row for each in full}), ("y", {each.target for each in full})):
        if len(rows) > 1:
            found = " and ".join(sorted("labels" if row is None else in_words(row) for row in rows))
            whose = name if what == "X" else what
            raise ValueError(
                f"the partitions of {whose} have rows of {found}: all must have the same; convert them, .astype(...)"
            )
    if len({summary.is_sparse for summary in full}) > 1:
        raise ValueError(
            f"some partitions of {name} are CSR and some dense: all must be of one kind; use tocsr or toarray"
        )
    targets = sorted({summary.targets for summary in full})
    if len(targets) > 1 and full[0].row is None:
        raise ValueError(f"the partitions of y have {targets} columns: all must have the same")
    if not any(summary.mass.any() for summary in full):
        raise ValueError("sample_weight is 0 everywhere: at least one row must count")


def len_of(values: Any) -> int:
    """Return how many rows a partition has, one of several inputs, too."""
    return int((next(iter(values.values())) if isinstance(values, dict) else values).shape[0])


def refuse_other_length(name: str, index: int, x: Any, what: str, values: Any) -> None:
    """Raise ValueError unless a partition of X has as many rows as that of y or the weights."""
    rows, found = len_of(x), len_of(values)
    if rows != found:
        raise ValueError(
            f"partition {index} of {name} has {rows} rows but that of {what} has {found}: their partitions must "
            "hold the same rows; take both from one dataframe, or give them the same chunks, after compute_chunk_sizes() of "
            "Dask arrays whose chunk sizes are unknown"
        )
