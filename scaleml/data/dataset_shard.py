"""Shards of a map-style dataset: numbers of items, which a rank reads ahead, block by block, again in every epoch."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Final, final

import numpy as np

from scaleml.arrays import Array
from scaleml.data.dataset_items import ItemFormat, SharedDataset
from scaleml.data.piece import Arrays
from scaleml.data.stream import BLOCK, Files

_ROWS: Final = 256
"""Items of a block, fewer where these are large."""


@final
@dataclass(frozen=True)
class DatasetShard:
    """Some items of a dataset, in the order in which they are read.

    Parameters
    ----------
    dataset : SharedDataset or None
        On the rank's worker; None before it is delivered there.
    indices : (n,) int array
        The numbers of its items.
    form : ItemFormat
        What they become.
    weights : (n,) array or None
        Their sample weights.
    """

    dataset: SharedDataset | None
    indices: Array
    form: ItemFormat
    weights: Array | None

    is_mapped: Final = False

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.indices)

    @property
    def nbytes(self) -> int:
        """Bytes of all of X."""
        return self.rows * self.form.row.itemsize

    def open(self) -> Arrays:
        """Read all of it into memory, block by block: what its items are made of need not be there all at once."""
        blocks, x = self.blocks(), np.empty(self.rows, self.form.row)
        parts = [blocks.read_rows(start, stop, x[start:stop]) for start, stop in pairwise(blocks.starts.tolist())]
        return x, np.concatenate([y for _, y, _ in parts]), self.weights

    def blocks(self) -> DatasetBlocks:
        """Return the blocks in which it is read."""
        return DatasetBlocks(self)


@final
class DatasetBlocks:
    """The blocks of a shard of a dataset: to a `scaleml.data.stream.Stream` what those of files are."""

    def __init__(self, shard: DatasetShard) -> None:
        self._shard = shard
        self.rows = shard.rows
        self.block_rows = max(1, min(_ROWS, BLOCK // max(1, shard.form.row.itemsize), self.rows))
        self.count = max(1, -(-self.rows // self.block_rows))
        self.starts = np.minimum(np.arange(self.count + 1) * self.block_rows, self.rows)

    def at(self, row: int) -> int:
        """Return the block that holds ``row``."""
        return min(row // self.block_rows, self.count - 1)

    def read(self, block: int, files: Files, out: Array | None = None, scratch: Array | None = None) -> Arrays:
        """Read a block, X into ``out`` where that is given; there are no files."""
        return self.read_rows(int(self.starts[block]), int(self.starts[block + 1]), out)

    def read_rows(self, start: int, stop: int, out: Array | None = None) -> Arrays:
        """Read some rows."""
        shard = self._shard
        indices = shard.indices[start:stop].tolist()
        assert shard.dataset is not None, "read by ranks"
        x, y = shard.dataset.read(shard.form, indices, None if out is None else out[: stop - start])
        return x, y, None if shard.weights is None else shard.weights[start:stop]

    def buffer(self) -> Array:
        """Return memory for a block's X."""
        return np.empty(self.block_rows, self._shard.form.row)
