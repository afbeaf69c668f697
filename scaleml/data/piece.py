"""Pieces: what a worker, or the client, keeps of a source in a file. Where X, y and weights of its rows lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from scaleml import arrays
from scaleml.arrays import Array, Matrix

Arrays = tuple[Matrix, Array, Array | None]
"""``X`` (n, features) dense or CSR, ``y`` (n,) or (n, targets), sample weights (n,) or None; (n, ...) where rows have any shape."""


@dataclass(frozen=True)
class Region:
    """An array inside a file; the dtype is that of a record where rows have several inputs, else its name."""

    offset: int
    shape: tuple[int, ...]
    dtype: str | np.dtype[Any]

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize

    def map(self, path: str) -> Array:
        """Map the region read-only."""
        if self.nbytes == 0:
            return np.empty(self.shape, self.dtype)
        return np.memmap(path, dtype=self.dtype, mode="r", offset=self.offset, shape=self.shape).view(np.ndarray)


@dataclass(frozen=True)
class Piece:
    """Rows in a file: a partition of a collection on a worker, or all rows of arrays on the client.

    Parameters
    ----------
    path : str
        The file.
    rows, features : int
        Rows, and the numbers in a row of X.
    x : Region or three of them
        Dense X; or data, indices and indptr of CSR.
    y : Region
        Targets as ranks want them, or codes into the piece's own labels.
    weights : Region or None
        Sample weights.
    """

    path: str
    rows: int
    features: int
    x: Region | tuple[Region, Region, Region]
    y: Region
    weights: Region | None

    @property
    def row_nbytes(self) -> int:
        """About how many bytes a row of X takes."""
        regions = (self.x,) if isinstance(self.x, Region) else self.x
        return max(1, sum(region.nbytes for region in regions) // max(1, self.rows))

    def map(self, start: int, stop: int) -> Arrays:
        """Map some of the rows read-only; nothing of dense X is copied, and of CSR only where its rows begin."""
        x: Matrix
        if isinstance(self.x, Region):
            x = self.x.map(self.path)[start:stop]
        else:
            data, indices, indptr = (region.map(self.path) for region in self.x)
            first, last = int(indptr[start]), int(indptr[stop])
            mine = np.array(indptr[start : stop + 1]) - indptr[start]
            x = arrays.csr(data[first:last], indices[first:last], mine, (stop - start, self.features))
        y = self.y.map(self.path)[start:stop]
        weights = self.weights.map(self.path)[start:stop] if self.weights else None
        return x, y, weights


@dataclass(frozen=True)
class Run:
    """Rows of a piece, one after another, and what their labels and weights stand for in training.

    Parameters
    ----------
    piece : Piece
        Where they lie.
    start, stop : int
        Which rows.
    codes : (k,) or (k, targets) array or None
        What each of the piece's own labels stands for, in the dtype that ranks want.
    factors : (k,) or () array or None
        What the weights are multiplied by, for each of the piece's own labels, or all alike.
    columns : (k,) int array or None
        Of CSR rows, which columns count, sorted: they are numbered anew, and the others are left out.
    """

    piece: Piece
    start: int
    stop: int
    codes: Array | None = None
    factors: Array | None = None
    columns: Array | None = None

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.stop - self.start

    @property
    def nbytes(self) -> int:
        """About how many bytes of X they are."""
        return self.rows * self.piece.row_nbytes

    @property
    def is_weighted(self) -> bool:
        """Whether its rows have weights of their own."""
        return self.piece.weights is not None or self.factors is not None

    @property
    def is_plain(self) -> bool:
        """Whether ranks take the rows as they lie in the file."""
        return self.codes is None and self.factors is None and self.columns is None


def stored_in_a_row(runs: Sequence[Run]) -> float | None:
    """Return how many values a row of CSR runs stores, on average; None of dense rows."""
    stored, rows = 0.0, 0
    for run in runs:
        if isinstance(run.piece.x, Region):
            return None
        stored += run.rows * run.piece.x[0].shape[0] / max(1, run.piece.rows)
        rows += run.rows
    return stored / max(1, rows)
