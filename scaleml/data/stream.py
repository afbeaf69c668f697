"""Streams: rows of files read ahead block by block, in one order whether they stream past or are all kept."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from typing import Final, Protocol

import numpy as np

from scaleml import arrays
from scaleml.arrays import Array, Matrix
from scaleml.data.piece import Arrays, Region, Run

BLOCK: Final = 8 << 20
"""Bytes of a block at most, unless one row is larger."""
_OPEN_FILES: Final = 64
_SALT: Final = 0xB10C


class Files:
    """Open files by path, a limited number of them; for one thread."""

    def __init__(self) -> None:
        self._open: dict[str, int] = {}

    def read(self, region: Region, start: int, stop: int, path: str, out: Array | None = None) -> Array:
        """Return items ``start:stop`` of a region's first axis, in ``out`` if that is given."""
        shape = (stop - start, *region.shape[1:])
        if out is None:
            out = np.empty(shape, region.dtype)
        if out.nbytes == 0:
            return out
        view = out.reshape(-1).view(np.uint8).data
        at = region.offset + start * (region.nbytes // region.shape[0])
        done = 0
        while done < len(view):
            count = os.preadv(self._descriptor(path), [view[done:]], at + done)
            if count == 0:
                raise EOFError(f"{path} ends before byte {at + len(view)}: it was cut short after it was written")
            done += count
        return out

    def _descriptor(self, path: str) -> int:
        if path not in self._open:
            if len(self._open) >= _OPEN_FILES:
                self.close()
            self._open[path] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        return self._open[path]

    def close(self) -> None:
        """Close all."""
        while self._open:
            os.close(self._open.popitem()[1])


class Blocks:
    """The rows of some runs in the order of a shard.

    Of ``J`` blocks, the first ``j`` take the first ``floor(j * m / J + k / K)`` of the ``m`` rows of run ``k`` of ``K``; each
    block shuffles its rows. So every block is a fair sample of all runs, and reads each of them onwards.

    Parameters
    ----------
    runs : sequence of Run
        Where the rows lie; all dense or all CSR.
    block_rows : int
        About how many rows make a block.
    entropy : sequence of int or None
        Decides the shuffle; None leaves the rows in the order of the runs.
    """

    def __init__(self, runs: Sequence[Run], block_rows: int, entropy: Sequence[int] | None) -> None:
        self.runs = list(runs)
        self.entropy = None if entropy is None else [*entropy, _SALT]
        sizes = np.array([run.rows for run in runs], np.int64)
        self.rows = int(sizes.sum())
        self.count = max(1, -(-self.rows // block_rows))
        if entropy is None:  # one after another
            bounds = np.arange(self.count + 1)[:, None] * self.rows // self.count
            ends = np.cumsum(sizes)
            self._cuts = np.clip(bounds, ends - sizes, ends) - (ends - sizes)
        else:
            every, phases = len(sizes), np.arange(len(sizes)) * self.count
            self._cuts = (np.arange(self.count + 1)[:, None] * sizes * every + phases) // (self.count * every)
        self.starts = self._cuts.sum(axis=1)
        self.block_rows = int(np.diff(self.starts).max())

    def at(self, row: int) -> int:
        """Return the block that holds ``row``."""
        return min(int(np.searchsorted(self.starts, row, "right")) - 1, self.count - 1)

    def read(self, block: int, files: Files, out: Array | None = None, scratch: Array | None = None) -> Arrays:
        """Read a block; dense X goes into ``out`` by way of ``scratch`` where these are given."""
        rows = int(self.starts[block + 1] - self.starts[block])
        parts = [
            (run, run.start + int(low), run.start + int(high))
            for run, low, high in zip(self.runs, self._cuts[block], self._cuts[block + 1], strict=True)
            if high > low
        ] or [(self.runs[0], 0, 0)]
        order = None if self.entropy is None else np.random.default_rng([*self.entropy, block]).permutation(rows)
        labels = [read_labels(*part, files) for part in parts]
        y = _ordered(
            np.concatenate([targets_of(part[0], mine) for part, mine in zip(parts, labels, strict=True)]), order
        )
        weights = None
        if parts[0][0].is_weighted:
            each = [read_weights(*part, mine, files) for part, mine in zip(parts, labels, strict=True)]
            weights = _ordered(np.concatenate([mine for mine in each if mine is not None]), order)
        if isinstance(parts[0][0].piece.x, tuple):
            x = arrays.concatenate_rows([_csr(*part, files) for part in parts])
            return (x if order is None else x[order]), y, weights
        out = self.buffer() if out is None else out
        raw = out if order is None else self.buffer() if scratch is None else scratch
        assert out is not None  # X is dense
        assert raw is not None
        position = 0
        for run, low, high in parts:
            region = run.piece.x
            assert isinstance(region, Region)
            files.read(region, low, high, run.piece.path, raw[position : position + high - low])
            position += high - low
        if order is not None:
            np.take(raw[:rows], order, axis=0, out=out[:rows], mode="clip")  # "raise" would copy
        return out[:rows], y, weights

    def buffer(self) -> Array | None:
        """Return memory for the largest block of dense X; None for CSR."""
        region = self.runs[0].piece.x
        return np.empty((self.block_rows, *region.shape[1:]), region.dtype) if isinstance(region, Region) else None

    def all(self) -> Arrays:
        """Read all blocks into memory."""
        files = Files()
        try:
            region = self.runs[0].piece.x
            if not isinstance(region, Region):
                return _joined([self.read(block, files) for block in range(self.count)])
            x = np.empty((self.rows, *region.shape[1:]), region.dtype)
            scratch = self.buffer()
            parts = [
                self.read(block, files, x[self.starts[block] : self.starts[block + 1]], scratch)
                for block in range(self.count)
            ]
            weights = None if parts[0][2] is None else np.concatenate([part[2] for part in parts])
            return x, np.concatenate([part[1] for part in parts]), weights
        finally:
            files.close()


class AnyBlocks(Protocol):
    """Rows in blocks, of files or of what has items by number; see `Blocks`."""

    rows: int
    count: int
    starts: Array

    def at(self, row: int) -> int:
        """Return the block that holds ``row``."""

    def read(self, block: int, files: Files, out: Array | None = None, scratch: Array | None = None) -> Arrays:
        """Read a block; X goes into ``out`` where that is given."""

    def buffer(self) -> Array | None:
        """Return memory for the largest block of dense X; None for CSR."""


class Prefetch:
    """One thread that reads ahead for all streams of a rank, with one scratch buffer for them all."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, "scaleml-prefetch")
        self._files = Files()
        self._scratch: Array | None = None

    def read(self, blocks: AnyBlocks, block: int, out: Array | None) -> Future[Arrays]:
        """Have a block read."""
        return self._executor.submit(self._read, blocks, block, out)

    def read_rows(self, read: Callable[[int, int], Arrays], start: int, stop: int) -> Future[Arrays]:
        """Have some rows read by ``read``."""
        return self._executor.submit(read, start, stop)

    def _read(self, blocks: AnyBlocks, block: int, out: Array | None) -> Arrays:
        if out is not None and (self._scratch is None or len(self._scratch) < len(out)):
            self._scratch = blocks.buffer()
        return blocks.read(block, self._files, out, self._scratch)

    def close(self) -> None:
        """End the thread and close its files."""
        self._executor.shutdown(wait=True, cancel_futures=True)
        self._files.close()


class Stream:
    """The rows of a shard as they are wanted, round and round: one block in use, the next on its way.

    What ``take`` returns is valid until it is called again.
    """

    def __init__(self, blocks: AnyBlocks, prefetch: Prefetch) -> None:
        self.rows = blocks.rows
        self._blocks = blocks
        self._prefetch = prefetch
        self._buffers = [blocks.buffer(), blocks.buffer()]
        self._next, self._coming = 0, prefetch.read(blocks, 0, self._buffers[0])
        self._low = self._high = 0
        self._turn(0)

    @property
    def lies_in_files(self) -> bool:
        """Whether its rows are the same each time they are read."""
        return isinstance(self._blocks, Blocks)

    def take(self, start: int, stop: int) -> Arrays:
        """Return rows ``start:stop``: X, y and weights."""
        if not self._low <= start < self._high:
            self._turn(self._blocks.at(start))
        if stop <= self._high:
            return self._slice(start, stop)
        parts = []
        while start < stop:
            if start >= self._high or start < self._low:
                self._turn(self._blocks.at(start))
            end = min(stop, self._high)
            x, y, weights = self._slice(start, end)
            # The memory of a dense block is used again.
            parts.append((x if arrays.is_sparse(x) else np.array(x), y, weights))
            start = end
        return _joined(parts)

    def blocks(self) -> Iterator[Arrays]:
        """Yield all rows once."""
        for low, high in pairwise(self._blocks.starts.tolist()):
            if high > low:
                yield self.take(low, high)

    def _slice(self, start: int, stop: int) -> Arrays:
        x, y, weights = self._block
        a, b = start - self._low, stop - self._low
        return arrays.rows(x, a, b), y[a:b], None if weights is None else weights[a:b]

    def _turn(self, block: int) -> None:
        """Make a block the current one and have the next one read."""
        if block != self._next:
            self._coming.result()  # its memory is needed
            self._coming = self._prefetch.read(self._blocks, block, self._buffers[0])
        self._block = self._coming.result()
        self._low, self._high = (int(row) for row in self._blocks.starts[block : block + 2])
        self._buffers.reverse()
        self._next = (block + 1) % self._blocks.count
        self._coming = self._prefetch.read(self._blocks, self._next, self._buffers[0])


def read_labels(run: Run, low: int, high: int, files: Files) -> Array:
    """Return y of some rows of a run's piece, as it lies in the file."""
    return files.read(run.piece.y, low, high, run.piece.path)


def targets_of(run: Run, labels: Array) -> Array:
    """Return what labels of a run's piece stand for in training."""
    return labels if run.codes is None else run.codes[labels]


def read_weights(run: Run, low: int, high: int, labels: Array, files: Files) -> Array | None:
    """Return the weights in training of some rows of a run's piece, which have these labels."""
    region, factors = run.piece.weights, run.factors
    weights = None if region is None else files.read(region, low, high, run.piece.path)
    if factors is None:
        return weights
    mine = factors[labels] if np.ndim(factors) else np.full(high - low, factors, np.asarray(factors).dtype)
    return mine if weights is None else (weights * mine).astype(weights.dtype, copy=False)


def _csr(run: Run, low: int, high: int, files: Files) -> Matrix:
    piece = run.piece
    assert isinstance(piece.x, tuple)
    data, indices, indptr = piece.x
    pointers = files.read(indptr, low, high + 1, piece.path)
    first, last = int(pointers[0]), int(pointers[-1])
    rows = arrays.csr(
        files.read(data, first, last, piece.path),
        files.read(indices, first, last, piece.path),
        pointers - pointers[0],
        (high - low, piece.features),
    )
    return rows if run.columns is None else arrays.only_columns(rows, run.columns)


def _ordered(values: Array, order: Array | None) -> Array:
    return values if order is None else values[order]


def _joined(parts: list[Arrays]) -> Arrays:
    weights = None if parts[0][2] is None else np.concatenate([part[2] for part in parts])
    return (
        arrays.concatenate_rows([part[0] for part in parts]),
        np.concatenate([part[1] for part in parts]),
        weights,
    )
