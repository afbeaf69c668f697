"""The pass over one partition of rows of any shape: as that over a table's, checked, shuffled and written to a piece."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np

from scaleml.arrays import Array
from scaleml.data.column_sizes import ColumnSizes
from scaleml.data.columns import as_column, as_told, as_weights, cast_finite
from scaleml.data.labels import local_codes
from scaleml.data.partition import SALT, PassOptions, PieceSummary, len_of, refuse_other_length, tally
from scaleml.data.piece_file import PieceFile, size_of_tensors
from scaleml.data.pixels import brightest
from scaleml.data.row_sample import heaviest_of
from scaleml.data.tensor_source import holds_labels
from scaleml.data.tensors import Tensors, as_tensors, plain_array


def write_tensor_partition(
    options: PassOptions,
    index: int,
    first: int | None,
    folder: pathlib.Path,
    partition_x: object,
    partition_y: object,
    partition_weights: object = None,
) -> PieceSummary:
    """Write one partition to a file in ``folder``; see `scaleml.data.partition.write_partition`.

    Parameters
    ----------
    partition_x, partition_y, partition_weights
        Arrays, or dicts of them, of as many rows; the weights may be None.
    """
    name, target, weight = options.name, "y", "sample_weight"
    if first is None:
        name, target, weight = (f"partition {index} of {what}" for what in (name, target, weight))
        first = 0
    refuse_other_length(options.name, index, partition_x, "y", partition_y)
    if partition_weights is not None:
        refuse_other_length(options.name, index, partition_x, "sample_weight", partition_weights)
    n = len_of(partition_x)
    if not n:
        none = np.zeros(0)
        return PieceSummary(None, 0, 0, 0, False, 0, None, none, none, none, none)
    x = as_tensors(
        as_told(partition_x, options.columns, f"partition {index} of {options.name}"), name, options.dtype, first
    )
    y, classes = _targets(options, as_told(partition_y, options.targets, f"partition {index} of y"), target, n, first)
    w: Array | None = None
    if partition_weights is not None:
        w = as_weights(as_column(partition_weights, weight, n, name), weight, first)
        w = cast_finite(w, options.dtype, weight, first)
    chance = np.random.default_rng([options.seed or 0, SALT, index])
    order = np.arange(n) if options.seed is None else chance.permutation(n)
    held = int(n * options.fraction + chance.random())
    file = PieceFile(size_of_tensors(x, y, w is not None, n, options.dtype), folder)
    try:
        piece = file.write_tensors(x, y, w, order)
        file.seal(options.token.encode())
    except BaseException:
        file.close()
        raise
    file.detach()
    labels = np.zeros(n, np.int32) if isinstance(y, Tensors) else y
    counts, mass = tally(labels, w, slice(None), 0)
    held_counts, held_mass = tally(labels, w, order[:held], len(counts))
    return PieceSummary(
        piece,
        n,
        held,
        x.items,
        False,
        targets=y.items if isinstance(y, Tensors) else 0,
        classes=classes,
        counts=counts,
        mass=mass,
        held_counts=held_counts,
        held_mass=held_mass,
        sizes=None if x.table is None else ColumnSizes.of(x.table, order),
        brightest=brightest(x.parts),
        digest=file.digest.value,
        heaviest=None if w is None else held + heaviest_of(w[order[held:]]),
        row=x.row,
        target=y.row if isinstance(y, Tensors) else None,
    )


def _targets(options: PassOptions, given: Any, name: str, n: int, first: int) -> tuple[Tensors | Array, Array | None]:
    """Return values; or the codes of labels into the partition's own classes, and these."""
    if options.classifier and holds_labels(given, name):
        return local_codes(as_column(plain_array(given), name, n, options.name), name, first)
    return as_tensors(given, name, options.dtype, first), None
