"""A rank's side of the data: the shards it owns and the batches they make."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from scaleml import arrays
from scaleml.data.schedule import Schedule

Arrays = tuple[Any, Any, Any]
"""``X`` (n, features) dense or CSR, ``y`` (n,) or (n, targets), sample weights (n,) or None."""


class Shard(ABC):
    """Some rows of the data, somewhere; ``open`` brings them into this process."""

    rows: int

    @abstractmethod
    def open(self) -> Arrays:
        """Return ``X``, ``y`` and the sample weights of the shard."""


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

    def open(self) -> Arrays:
        """Return the arrays."""
        return self.x, self.y, self.weights


class Batches:
    """The batches of one rank: for each global batch, the slices of the shards that this rank owns.

    Parameters
    ----------
    schedule : Schedule
        How all shards take turns.
    owned : sequence of int
        Which shards this rank owns.
    shards : sequence of Arrays
        Their contents, in the same order.
    """

    def __init__(self, schedule: Schedule, owned: Sequence[int], shards: Sequence[Arrays]) -> None:
        assert len(owned) == len(shards)
        self.schedule: Final = schedule
        self.owned: Final = tuple(owned)
        self._shards = list(shards)
        self._only = (self.owned[0], *shards[0], not arrays.is_sparse(shards[0][0])) if len(owned) == 1 else None

    def take(self, consumed: int, count: int) -> tuple[Any, Any, Any, int]:
        """Return this rank's rows of the batch ``[consumed, consumed + count)`` of an epoch.

        Returns
        -------
        x, y, weights, rows
            ``weights`` is None where the data has none; ``rows`` may be 0.
        """
        taken = self.schedule.taken
        if self._only is not None:
            index, x, y, weights, dense = self._only
            start, stop = consumed, consumed + count
            if not self.schedule.whole:
                start, stop = taken(index, start), taken(index, stop)
            return (
                x[start:stop] if dense else arrays.rows(x, start, stop),
                y[start:stop],
                None if weights is None else weights[start:stop],
                stop - start,
            )
        parts = []
        for index, (x, y, weights) in zip(self.owned, self._shards, strict=True):
            start, stop = taken(index, consumed), taken(index, consumed + count)
            if stop > start:
                part_weights = None if weights is None else weights[start:stop]
                parts.append((arrays.rows(x, start, stop), y[start:stop], part_weights))
        return self._joined(parts)

    def _joined(self, parts: list[Arrays]) -> tuple[Any, Any, Any, int]:
        # One product over joined rows is far cheaper than one a slice; the copy is the price of many shards.
        if not parts:
            x, y, weights = self._shards[0]
            return arrays.rows(x, 0, 0), y[:0], None if weights is None else weights[:0], 0
        if len(parts) == 1:
            x, y, weights = parts[0]
        else:
            x = arrays.concatenate_rows([part[0] for part in parts])
            xp = arrays.namespace(parts[0][1])
            y = xp.concatenate([part[1] for part in parts])
            weights = None if parts[0][2] is None else xp.concatenate([part[2] for part in parts])
        return x, y, weights, int(y.shape[0])

    def locate(self, consumed: int, count: int, row: int) -> tuple[int, int]:
        """Return the shard, and the row within it, of row ``row`` of this rank's part of a batch."""
        for index in self.owned:
            start = self.schedule.taken(index, consumed)
            size = self.schedule.taken(index, consumed + count) - start
            if row < size:
                return index, start + row
            row -= size
        raise AssertionError("the row lies outside the batch")
