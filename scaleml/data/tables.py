"""Where X, y and weights of many rows lie in a file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np

from scaleml import arrays

Arrays = tuple[Any, Any, Any]
"""``X`` (n, features) dense or CSR, ``y`` (n,) or (n, targets), sample weights (n,) or None."""


class Shard(ABC):
    """Some rows of the data, somewhere; ``open`` brings them into this process."""

    rows: int

    @abstractmethod
    def open(self) -> Arrays:
        """Return ``X``, ``y`` and the sample weights of the shard."""

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """About how many bytes of X it has."""


@dataclass(frozen=True)
class Region:
    """An array inside a file."""

    offset: int
    shape: tuple[int, ...]
    dtype: str

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize

    def map(self, path: str) -> Any:
        """Map the region read-only."""
        if self.nbytes == 0:
            return np.empty(self.shape, self.dtype)
        return np.memmap(path, dtype=self.dtype, mode="r", offset=self.offset, shape=self.shape).view(np.ndarray)


@dataclass(frozen=True)
class Table:
    """X, y and weights of many rows in a file: shards are runs of its rows, so any number of them costs nothing."""

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

    def cut(self, shards: int) -> list[MappedShard]:
        """Cut the rows into ``shards`` nearly equal runs."""
        bounds = [self.rows * s // shards for s in range(shards + 1)]
        return [MappedShard(self, bounds[s], bounds[s + 1]) for s in range(shards)]


@dataclass(frozen=True)
class MappedShard(Shard):
    """A run of rows of a table in a file that this host shares; nothing is copied."""

    table: Table
    start: int
    stop: int

    @property
    def rows(self) -> int:  # type: ignore[override]
        """Number of rows."""
        return self.stop - self.start

    @property
    def nbytes(self) -> int:
        """About how many bytes of X it has."""
        return self.rows * self.table.row_nbytes

    def open(self) -> Arrays:
        """Map the shard's arrays read-only."""
        table = self.table
        if isinstance(table.x, Region):
            x = table.x.map(table.path)[self.start : self.stop]
        else:
            data, indices, indptr = (region.map(table.path) for region in table.x)
            first, last = int(indptr[self.start]), int(indptr[self.stop])
            mine = np.array(indptr[self.start : self.stop + 1]) - indptr[self.start]
            x = arrays.csr(data[first:last], indices[first:last], mine, (self.rows, table.features))
        y = table.y.map(table.path)[self.start : self.stop]
        weights = table.weights.map(table.path)[self.start : self.stop] if table.weights else None
        return x, y, weights


@dataclass(frozen=True)
class ArrayShard(Shard):
    """A shard that lies in this process's memory, as Dask brought it."""

    x: Any
    y: Any
    weights: Any

    @property
    def rows(self) -> int:  # type: ignore[override]
        """Number of rows."""
        return int(self.y.shape[0])

    @property
    def nbytes(self) -> int:
        """Bytes of X, which are in memory already."""
        return int(self.x.data.nbytes if arrays.is_sparse(self.x) else self.x.nbytes)

    def open(self) -> Arrays:
        """Return the arrays."""
        return self.x, self.y, self.weights
