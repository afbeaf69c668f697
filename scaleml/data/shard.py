"""Shards: what a rank reads. Runs of rows of pieces, cut once when a run starts, mapped or read in blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from scaleml import arrays
from scaleml.arrays import Array, Matrix
from scaleml.data.piece import Arrays, Piece, Region, Run
from scaleml.data.stream import BLOCK, Blocks

_BLOCKS: Final = 64 << 20
"""Bytes of one block of each of all shards together, as long as blocks stay above a megabyte."""


@dataclass(frozen=True)
class Shard:
    """Rows of files.

    Parameters
    ----------
    runs : tuple of Run
        Where they lie, at least one.
    block_rows : int
        Rows of a block: part of the order of shuffled rows, so no matter of memory.
    entropy : tuple of int or None
        Decides the shuffle of the runs together, block by block; None leaves the rows in the order of the runs.
    """

    runs: tuple[Run, ...]
    block_rows: int
    entropy: tuple[int, ...] | None = None

    @property
    def rows(self) -> int:
        """Number of rows."""
        return sum(run.rows for run in self.runs)

    @property
    def nbytes(self) -> int:
        """About how many bytes of X it has."""
        return sum(run.nbytes for run in self.runs)

    @property
    def is_mapped(self) -> bool:
        """Whether it is opened without a copy: one run, as it lies in its file."""
        return len(self.runs) == 1 and self.entropy is None and self.runs[0].is_plain

    @property
    def is_in_order(self) -> bool:
        """Whether it is dense rows of several files one after another, none moved."""
        return len(self.runs) > 1 and self.entropy is None and isinstance(self.runs[0].piece.x, Region)

    def open(self) -> Arrays:
        """Map the shard's arrays, or read them into memory."""
        if self.is_mapped:
            (run,) = self.runs
            return run.piece.map(run.start, run.stop)
        return self.blocks().all()

    def blocks(self) -> Blocks:
        """Return the blocks in which the shard can be read."""
        return Blocks(self.runs, self.block_rows, self.entropy)

    def at(self, pieces: Mapping[str, Piece]) -> Shard:
        """Return the same rows where their pieces lie elsewhere: in those given, by the path of the old ones."""
        if not any(run.piece.path in pieces for run in self.runs):
            return self
        return replace(self, runs=tuple(replace(run, piece=pieces.get(run.piece.path, run.piece)) for run in self.runs))


@dataclass(frozen=True)
class ArrayShard:
    """Rows in this process's memory, as Dask brought them."""

    x: Matrix
    y: Array
    weights: Array | None

    @property
    def rows(self) -> int:
        """Number of rows."""
        return int(self.y.shape[0])

    @property
    def nbytes(self) -> int:
        """Bytes of X, which are in memory already."""
        return int(self.x.data.nbytes if arrays.is_sparse(self.x) else self.x.nbytes)

    is_mapped: Final = False

    def open(self) -> Arrays:
        """Return the arrays."""
        return self.x, self.y, self.weights


def cut_shards(runs: Sequence[Run], count: int, seed: int | None = None) -> list[Shard]:
    """Cut rows into ``count`` nearly equal shards, in one walk over the runs.

    Parameters
    ----------
    runs : sequence of Run
        The rows, in their order; at least one run.
    count : int
        How many shards; one that gets no rows has an empty run.
    seed : int or None
        Decides the order of the rows within the shards; None leaves them as they are.

    Examples
    --------
    >>> from scaleml.data.piece import Region
    >>> piece = Piece("file", 10, 1, Region(0, (10, 1), "<f4"), Region(64, (10,), "<f4"), None)
    >>> [[(run.start, run.stop) for run in shard.runs] for shard in cut_shards([Run(piece, 0, 4), Run(piece, 6, 10)], 3)]
    [[(0, 2)], [(2, 4), (6, 7)], [(7, 10)]]
    """
    ends = np.cumsum([run.rows for run in runs]).tolist()
    total = ends[-1]
    block = min(BLOCK, max(1 << 20, _BLOCKS // count))
    block_rows = max(1, block * total // max(1, sum(run.nbytes for run in runs)))
    shards, index = [], 0
    for s in range(count):
        low, high = total * s // count, total * (s + 1) // count
        mine = []
        while low < high:
            run, begin = runs[index], ends[index] - runs[index].rows
            stop = min(high, ends[index])
            if low < stop:
                mine.append(replace(run, start=run.start + low - begin, stop=run.start + stop - begin))
            low = max(low, stop)
            index += stop == ends[index]
        nothing = replace(runs[0], stop=runs[0].start)
        shards.append(Shard(tuple(mine) or (nothing,), block_rows, None if seed is None else (seed, s)))
    return shards
