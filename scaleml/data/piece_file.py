"""The file of a piece: written once, in blocks, mapped by every worker of its host, removed with its process."""

from __future__ import annotations

import contextlib
import os
import pathlib
import weakref
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np

from scaleml import arrays, owned_files
from scaleml.arrays import CSR, Array, Matrix, Rows
from scaleml.data.columns import finite_block
from scaleml.data.digest import Digest
from scaleml.data.piece import Piece, Region
from scaleml.data.row_dtype import is_several
from scaleml.data.tensor_source import LocalSource, TensorSource
from scaleml.data.tensors import Tensors

_BLOCK: Final = 8 << 20  # bytes in flight while copying: what the client holds beside the user's own data
_ALIGN: Final = 64


def row_blocks(
    x: Rows, rows: Array, dtype: str, name: str, first: int = 0, columns: Sequence[object] | None = None
) -> Iterator[Rows]:
    """Yield rows of X in blocks of a few MB, checked, in ``dtype``; errors count rows from ``first``."""
    per_row = x.shape[1] * 8 if not arrays.is_sparse(x) else max(1, 12 * x.nnz // max(1, x.shape[0]))
    step = max(1, _BLOCK // max(1, per_row))
    in_order = bool((np.diff(rows) == 1).all())
    for start in range(0, len(rows), step):
        picked: Array | slice = rows[start : start + step]
        if in_order:  # a view, where rows that are picked one by one are copied: a quarter of the pass over a partition
            picked = slice(int(rows[start]), int(rows[start]) + len(rows[start : start + step]))
        with np.errstate(over="ignore"):  # what is too large becomes infinite and is refused by its place below
            block: Rows = x[picked].astype(dtype, copy=False)  # type: ignore[assignment]  # of the class that x is of
        finite_block(block, x, name, first, columns)
        yield block


def size_of(x: Matrix, y: Array, weighted: bool, rows: Array, dtype: str) -> int:
    """Return the bytes that ``rows`` of this data take in a file, or a little less."""
    n, width = len(rows), np.dtype(dtype).itemsize
    if arrays.is_sparse(x):
        nnz = int(np.diff(x.indptr)[rows].sum())
        body = nnz * (width + _index_dtype(x).itemsize) + (n + 1) * 8
    else:
        body = n * x.shape[1] * width
    return body + n * 8 * (1 if y.ndim == 1 else y.shape[1]) + (n * width if weighted else 0) + 6 * _ALIGN


def size_of_tensors(x: Tensors, y: Tensors | Array, weighted: bool, rows: int, dtype: str) -> int:
    """Return the bytes that so many rows of any shape take in a file, or a little more."""
    target = y.row.itemsize if isinstance(y, Tensors) else 8
    return rows * (x.row.itemsize + target + weighted * np.dtype(dtype).itemsize) + 6 * _ALIGN


class PieceFile:
    """A file with pieces in it, removed when closed, when collected, or at exit.

    Parameters
    ----------
    nbytes : int
        Size to reserve; a folder without that much room is passed over, for writing past a small ``/dev/shm`` kills.
    folder : path, optional
        Where to make the file; default: in memory, else on the disk for temporary files.

    Attributes
    ----------
    digest : Digest
        Of what was written.

    Raises
    ------
    OSError
        When no folder has room.
    """

    def __init__(self, nbytes: int, folder: pathlib.Path | None = None) -> None:
        if folder is None:
            owned_files.sweep()
        self.path = ""
        self.digest = Digest()
        self._offset = 0
        reasons = []
        for place in owned_files.folders() if folder is None else [folder]:
            path, fd = owned_files.create("data", place)
            try:
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(fd, 0, max(1, nbytes))
            except OSError as error:
                _remove(fd, path)
                reasons.append(f"{place}: {error.strerror}")
                continue
            self.path, self._fd = path, fd
            break
        else:
            raise OSError(
                f"no room for {nbytes / 1e6:,.1f} MB of training data ({'; '.join(reasons)}): free some, or set "
                f"{'TMPDIR' if folder is None else 'temporary-directory in the configuration of Dask'} to a larger disk"
            )
        self._finalizer = weakref.finalize(self, _remove, self._fd, self.path)

    @staticmethod
    def size(source: LocalSource, rows: Array, dtype: str) -> int:
        """Return the bytes that ``rows`` of ``source`` take in a file."""
        if isinstance(source, TensorSource):
            return size_of_tensors(source.x, source.y, source.weights is not None, len(rows), dtype)
        return size_of(source.x, source.y, source.weights is not None, rows, dtype)

    def write(self, source: LocalSource, rows: Array, dtype: str, name: str = "X") -> Piece:
        """Copy ``rows`` of the data into the file, in that order, a few MB at a time.

        Raises
        ------
        ValueError
            For a value that is not finite, naming its row and column.
        """
        if isinstance(source, TensorSource):
            return self.write_tensors(source.x, source.encode(dtype), source.encode_weights(dtype), rows)
        return self.write_rows(
            source.x, source.encode(dtype), source.encode_weights(dtype), rows, dtype, name, columns=source.names
        )

    def write_rows(
        self,
        matrix: Matrix,
        y: Array,
        weights: Array | None,
        rows: Array,
        dtype: str,
        name: str,
        first: int = 0,
        columns: Sequence[object] | None = None,
    ) -> Piece:
        """Copy ``rows`` of X, and of a target and weights that are encoded already; errors count from ``first`` and name ``columns``."""
        features = int(matrix.shape[1])
        x: Region | tuple[Region, Region, Region]
        if arrays.is_sparse(matrix):
            x = self._write_csr(matrix, rows, dtype, name, first)
        else:
            x = self._reserve((len(rows), features), dtype)
            position = x.offset
            for block in row_blocks(matrix, rows, dtype, name, first, columns):
                position += self._put(block, position)
        region = None if weights is None else self._append(weights[rows])
        return Piece(self.path, len(rows), features, x, self._append(y[rows]), region)

    def write_tensors(self, x: Tensors, y: Tensors | Array, weights: Array | None, rows: Array) -> Piece:
        """Copy ``rows`` of any shape, with values or encoded labels and encoded weights; errors name rows."""
        inputs = self._write_tensors(x, rows)
        targets = self._write_tensors(y, rows) if isinstance(y, Tensors) else self._append(y[rows])
        region = None if weights is None else self._append(weights[rows])
        return Piece(self.path, len(rows), x.items, inputs, targets, region)

    def _write_tensors(self, x: Tensors, rows: Array) -> Region:
        several = is_several(x.row)
        region = self._reserve((len(rows), *x.row.shape), x.row if several else x.row.base.str)
        position = region.offset
        for block in x.blocks(rows):
            position += self._put(block, position)
        return region

    def _write_csr(self, x: CSR, rows: Array, dtype: str, name: str, first: int) -> tuple[Region, Region, Region]:
        counts = np.diff(x.indptr)[rows]
        index_dtype = _index_dtype(x)
        data = self._reserve((int(counts.sum()),), dtype)
        indices = self._reserve(data.shape, index_dtype.str)
        at_data, at_indices = data.offset, indices.offset
        for block in row_blocks(x, rows, dtype, name, first):
            at_data += self._put(block.data, at_data)
            at_indices += self._put(block.indices.astype(index_dtype, copy=False), at_indices)
        indptr = np.zeros(len(rows) + 1, index_dtype)
        np.cumsum(counts, out=indptr[1:])
        return data, indices, self._append(indptr)

    def _reserve(self, shape: tuple[int, ...], dtype: str | np.dtype[Any]) -> Region:
        region = Region(self._offset, tuple(shape), np.dtype(dtype).str if isinstance(dtype, str) else dtype)
        self._offset += -(-region.nbytes // _ALIGN) * _ALIGN
        return region

    def _append(self, values: Array) -> Region:
        region = self._reserve(values.shape, values.dtype.str)
        self._put(values, region.offset)
        return region

    def _put(self, values: Array, offset: int) -> int:
        written = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
        self.digest.update(written)
        view, done = written.data, 0
        while done < len(view):
            done += os.pwrite(self._fd, view[done:], offset + done)
        return done

    def seal(self, nonce: bytes) -> None:
        """End the file with a nonce, by which other processes know it for this one."""
        os.ftruncate(self._fd, self._offset)
        os.pwrite(self._fd, nonce, self._offset)

    def detach(self) -> None:
        """Close the file and leave it where it is: whoever asked for it removes it with its folder."""
        self._finalizer.detach()
        os.close(self._fd)

    def close(self) -> None:
        """Remove the file; processes that have mapped it keep what they see."""
        self._finalizer()


def _index_dtype(x: CSR) -> np.dtype[Any]:
    return np.dtype(np.int32 if x.shape[1] < 2**31 and x.nnz < 2**31 else np.int64)


def _remove(fd: int, path: str) -> None:
    with contextlib.suppress(OSError):
        os.close(fd)
    owned_files.remove(path)
