"""One partition of a collection: checked, converted, shuffled and written to a file in a single pass over its values."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from scaleml import arrays
from scaleml.data.inputs import as_column, as_matrix, as_targets, as_weights, cast_finite
from scaleml.data.labels import check_indicators, local_codes
from scaleml.data.reading import BLOCK, Segment
from scaleml.data.shards import SegmentedShard
from scaleml.data.store import Store, size_of
from scaleml.data.tables import Table

_SALT: Final = 0x91ECE
_BLOCKS: Final = 64 << 20
"""Bytes of one block of each of all shards together, as long as blocks stay above a megabyte."""


@dataclass(frozen=True)
class Recipe:
    """How every partition of a collection becomes a piece.

    Parameters
    ----------
    token : str
        Names the folder of the pieces.
    dtype : str
        The model's.
    classifier : bool
        Whether y holds labels.
    seed : int
        Decides the order of the rows.
    fraction : float
        Part of each partition that is held out.
    name : str
        How errors call the data.
    indicators : bool
        Whether y has a column of 0 and 1 for each label.
    """

    token: str
    dtype: str
    classifier: bool
    seed: int
    fraction: float
    name: str
    indicators: bool = False


@dataclass(frozen=True)
class Piece:
    """What became of a partition: plain and small, for it goes to the client.

    Parameters
    ----------
    table : Table or None
        Where its rows lie, held-out ones first; None for no rows.
    rows, held : int
        How many rows it has, and how many of them are held out.
    features : int
        Columns of X.
    sparse : bool
        Whether X is CSR.
    targets : int
        Columns of y; 0 for a y of one dimension.
    classes : array or None
        Its labels, sorted; y in the file are codes into these.
    counts, mass : (k,) arrays
        Rows and sum of the weights of each of its labels; of a regression's piece, of all rows.
    filled : array or None
        The columns of X that hold anything, sorted; None where that is most of them.
    worker : str
        The Dask worker whose folder the file is in.
    """

    table: Table | None
    rows: int
    held: int
    features: int
    sparse: bool
    targets: int
    classes: Any
    counts: Any
    mass: Any
    filled: Any = None
    worker: str = ""


def write_piece(recipe: Recipe, index: int, first: int | None, folder: pathlib.Path, x: Any, y: Any, w: Any) -> Piece:
    """Write one partition to a file in ``folder``.

    Parameters
    ----------
    index : int
        Which partition.
    first : int or None
        Number of its first row, if that is known; errors then name rows by their number in the whole.
    x, y, w : partition of X, of y, of the weights or None
        NumPy, CSR or pandas.

    Raises
    ------
    ValueError, TypeError
        For values that cannot be trained on, by row and column.
    """
    name, target, weight = recipe.name, "y", "sample_weight"
    if first is None:
        name, target, weight = (f"partition {index} of {what}" for what in (name, target, weight))
        first = 0
    if x.shape[0] == 0 and len(y) == 0:
        return Piece(None, 0, 0, int(x.shape[1]), hasattr(x, "tocsr"), 0, None, np.zeros(0), np.zeros(0))
    _refuse_other_length(recipe.name, index, x, "y", y)
    if w is not None:
        _refuse_other_length(recipe.name, index, x, "sample_weight", w)
    x = as_matrix(x, name)
    n = int(x.shape[0])
    y = as_column(y, target, n, name)
    classes = None
    if recipe.classifier:
        y, classes = local_codes(y, target, first)
    else:
        if recipe.indicators:
            check_indicators(y, target, first)
        y = cast_finite(as_targets(y, target, first), recipe.dtype, target, first)
    if w is not None:
        w = cast_finite(as_weights(as_column(w, weight, n, name), weight, first), recipe.dtype, weight, first)
    chance = np.random.default_rng([recipe.seed, _SALT, index])
    order = chance.permutation(n)
    held = int(n * recipe.fraction + chance.random())  # on average the fraction, however small the partitions
    store = Store(size_of(x, y, w is not None, order, recipe.dtype), folder)
    try:
        table = store.write_rows(x, y, w, order, recipe.dtype, name, first)
        store.seal(recipe.token.encode())
    except BaseException:
        store.close()
        raise
    store.detach()
    targets = 0 if y.ndim == 1 else int(y.shape[1])
    labels = np.zeros(n, np.int32) if classes is None else y
    counts = np.bincount(labels)
    mass = counts.astype(np.float64) if w is None else np.bincount(labels, w.astype(np.float64))
    sparse = arrays.is_sparse(x)
    filled = arrays.filled_columns(x) if sparse else None
    return Piece(table, n, held, int(x.shape[1]), sparse, targets, classes, counts, mass, filled)


def cut_pieces(
    pieces: Sequence[Piece],
    codings: Sequence[tuple[Any, Any]],
    count: int,
    seed: int,
    held_out: bool,
    shuffle: bool,
    columns: Any = None,
) -> list[SegmentedShard]:
    """Cut the rows of all pieces, in their order, into ``count`` nearly equal shards.

    Parameters
    ----------
    codings : sequence of (codes, factors)
        For each piece, what its own labels stand for; see `Segment`.
    seed : int
        Decides the order of the rows within the shards.
    held_out : bool
        Whether to take the rows that are held out, or the others.
    shuffle : bool
        Whether the order of the rows matters.
    columns : int array, optional
        Of CSR rows, which columns count; see `Segment`.
    """
    spans = [(0, piece.held) if held_out else (piece.held, piece.rows) for piece in pieces]
    ends = np.cumsum([stop - start for start, stop in spans])
    total = int(ends[-1])
    nbytes = sum(
        (stop - start) * piece.table.row_nbytes
        for piece, (start, stop) in zip(pieces, spans, strict=True)
        if piece.table
    )
    block = min(BLOCK, max(1 << 20, _BLOCKS // count))
    block_rows = max(1, block * total // max(1, nbytes))
    shards = []
    for s in range(count):
        low, high = total * s // count, total * (s + 1) // count
        segments = []
        for piece, coding, (start, stop), end in zip(pieces, codings, spans, ends.tolist(), strict=True):
            begin = end - (stop - start)
            a, b = max(low, begin), min(high, end)
            if a < b:
                assert piece.table is not None
                segments.append(Segment(piece.table, start + a - begin, start + b - begin, *coding, columns))
        shards.append(SegmentedShard(tuple(segments), block_rows, (seed, s) if shuffle else None))
    return shards


def _refuse_other_length(name: str, index: int, x: Any, what: str, values: Any) -> None:
    if x.shape[0] != values.shape[0]:
        raise ValueError(
            f"partition {index} of {name} has {x.shape[0]} rows but that of {what} has {values.shape[0]}: their partitions must "
            "hold the same rows; take both from one dataframe, or give them the same chunks, after compute_chunk_sizes() of "
            "Dask arrays whose chunk sizes are unknown"
        )
