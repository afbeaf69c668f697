"""NumPy or CuPy behind one namespace, dense arrays and CSR matrices behind one way of taking rows.

Nothing here imports CuPy or SciPy unless an array of theirs is given: what a rank imports decides how fast it recovers.
"""

from __future__ import annotations

import contextlib
import math
import mmap
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

if TYPE_CHECKING:
    from typing_extensions import TypeIs

__all__ = [
    "CSR", "Array", "Matrix", "Rows", "aligned", "compressed", "concatenate_rows", "csr", "filled_columns", "gpu_csr",
    "gpu_library", "is_sparse", "namespace", "only_columns", "own_copy", "rows", "to_numpy",
]  # fmt: skip

INT32_MAX = 2**31 - 1
_BLANK: dict[Any, dict[str, Any]] = {}  # what an empty matrix of SciPy has, by its class
PART = 131072
"""Elements of long arrays to work on together: they stay in the processor's cache through all passes over them."""

Array = np.ndarray[Any, np.dtype[Any]]
"""A dense array: NumPy's, or CuPy's, which has the same methods and counts as one of these to the type checker."""


class CSR(Protocol):
    """What is used of a CSR matrix, SciPy's or cupyx's.

    Attributes
    ----------
    data, indices : arrays of shape (nnz,)
    indptr : array of shape (rows + 1,)
    """

    data: Array
    indices: Array
    indptr: Array

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def ndim(self) -> int: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    @property
    def nnz(self) -> int: ...
    @property
    def T(self) -> CSR: ...  # SciPy's name

    def astype(self, dtype: Any, *, copy: bool = ...) -> CSR: ...
    def toarray(self) -> Array: ...
    def __getitem__(self, item: Any, /) -> CSR: ...
    def __matmul__(self, other: Array, /) -> Array: ...


Matrix = Array | CSR
"""Rows of X: dense, or CSR."""

Rows = TypeVar("Rows", bound=Matrix)


def namespace(*arrays: object) -> ModuleType:
    """Return the module, ``numpy`` or ``cupy``, whose functions take these arrays.

    Parameters
    ----------
    *arrays : array or CSR matrix
        Anything that belongs to neither library (a number, a list, None) counts as NumPy's.

    Returns
    -------
    module
        ``cupy`` if any of the arrays lies on a GPU, else ``numpy``.

    Examples
    --------
    >>> import numpy as np
    >>> namespace(np.zeros(3)).__name__
    'numpy'
    """
    for array in arrays:
        kind = type(array)
        if kind is not np.ndarray and kind.__module__.startswith("cupy"):
            return gpu_library()
    return np


def gpu_library() -> ModuleType:
    """Return CuPy; raises ImportError where there is none."""
    import cupy

    library: ModuleType = cupy
    return library


def gpu_csr(x: CSR) -> CSR:
    """Return SciPy's CSR matrix as one on the current GPU."""
    from cupyx.scipy.sparse import csr_matrix

    xp = gpu_library()
    parts = xp.asarray(x.data), xp.asarray(x.indices), xp.asarray(x.indptr)
    found: CSR = compressed(csr_matrix, *parts, x.shape)
    return found


def aligned(xp: ModuleType, shape: Sequence[int], dtype: Any) -> Array:
    """Return an array, its values undefined, that begins on a cache line: BLAS takes 2% less time for a perceptron then.

    Examples
    --------
    >>> import numpy as np
    >>> aligned(np, (3, 5), "float32").ctypes.data % 64
    0
    """
    if xp is not np:
        return xp.empty(shape, dtype)  # always so on a GPU
    kind, items = np.dtype(dtype), math.prod(shape)
    room = np.empty(items * kind.itemsize + 63, np.uint8)
    first = -room.ctypes.data % 64
    return room[first : first + items * kind.itemsize].view(kind).reshape(shape)


def is_sparse(x: object) -> TypeIs[CSR]:
    """Return whether `x` is a CSR matrix (SciPy's or cupyx's), without importing SciPy.

    Other sparse formats answer False: they cannot be cut into rows, and are to be converted with ``tocsr()`` first.

    Examples
    --------
    >>> import numpy as np, scipy.sparse
    >>> is_sparse(np.eye(2)), is_sparse(scipy.sparse.csr_matrix(np.eye(2)))
    (False, True)
    """
    return type(x) is not np.ndarray and getattr(x, "format", None) == "csr" and hasattr(x, "indptr")


def rows(x: Rows, start: int, stop: int) -> Rows:
    """Return rows ``start:stop`` of `x` without copying its values.

    Parameters
    ----------
    x : array of shape (n, ...) or CSR matrix of shape (n, F)
    start, stop : int
        ``0 <= start <= stop <= n``.

    Returns
    -------
    array of shape (stop - start, ...) or CSR matrix of shape (stop - start, F)
        A view; for CSR a new matrix over views of ``data`` and ``indices``, with row pointers of its own.

    Examples
    --------
    >>> import numpy as np, scipy.sparse
    >>> rows(np.arange(6).reshape(3, 2), 1, 3).tolist()
    [[2, 3], [4, 5]]
    >>> rows(scipy.sparse.csr_matrix(np.eye(3)), 2, 3).toarray().tolist()
    [[0.0, 0.0, 1.0]]
    """
    if not is_sparse(x):
        part: Rows = x[start:stop]  # type: ignore[assignment]  # of the class that x is of
        return part
    pointers = x.indptr[start : stop + 1]
    first, last = int(pointers[0]), int(pointers[-1])
    return _csr(x, x.data[first:last], x.indices[first:last], pointers - first, stop - start)


def concatenate_rows(parts: Sequence[Rows]) -> Rows:
    """Return the parts, all dense or all CSR, one below the other.

    Parameters
    ----------
    parts : sequence of arrays of shape (n_i, ...) or of CSR matrices of shape (n_i, F)

    Returns
    -------
    array of shape (sum of n_i, ...) or CSR matrix of shape (sum of n_i, F)
        A single part comes back as it is, not copied.

    Raises
    ------
    ValueError
        No part is given, dense and sparse are mixed, or the numbers of columns differ.

    Examples
    --------
    >>> import numpy as np
    >>> concatenate_rows([np.zeros((1, 2)), np.ones((2, 2))]).shape
    (3, 2)
    """
    if not parts:
        raise ValueError("parts=[]: at least one part is needed to know the columns; give one with 0 rows.")
    shapes = {tuple(part.shape[1:]) for part in parts}
    if len(shapes) > 1:
        raise ValueError(f"the parts have rows of shapes {sorted(shapes)}: all must be equal; check their reading.")
    sparse = [part for part in parts if is_sparse(part)]
    if len(sparse) not in (0, len(parts)):
        raise ValueError("some parts are CSR and some dense: all must be of one kind; use tocsr() or toarray().")
    if len(parts) == 1:
        return parts[0]
    xp = namespace(*parts)
    if not sparse:
        return xp.concatenate(list(parts))
    ends = np.cumsum([part.indices.shape[0] for part in sparse]).tolist()
    wide = ends[-1] > INT32_MAX or any(part.indptr.dtype.itemsize > 4 for part in sparse)
    index = xp.int64 if wide else xp.int32  # SciPy's products want one type of indices and pointers
    pointers = [sparse[0].indptr.astype(index)]
    pointers += [part.indptr[1:].astype(index) + end for part, end in zip(sparse[1:], ends, strict=False)]
    return _csr(
        parts[0],
        xp.concatenate([part.data for part in sparse]),
        xp.concatenate([part.indices for part in sparse]).astype(index, copy=False),
        xp.concatenate(pointers),
        sum(part.shape[0] for part in sparse),
    )


def to_numpy(x: object) -> Array:
    """Return `x` as a dense NumPy array; copied only if it lies on a GPU, is sparse, or is no array yet.

    Examples
    --------
    >>> to_numpy([1, 2]).tolist()
    [1, 2]
    """
    dense: Any = x.toarray() if is_sparse(x) else x
    return np.asarray(dense if namespace(dense) is np else dense.get())


def csr(data: Array, indices: Array, indptr: Array, shape: tuple[int, int]) -> CSR:
    """Return a SciPy CSR matrix over these arrays, neither copied nor checked.

    Parameters
    ----------
    data, indices : arrays of shape (nnz,)
    indptr : array of shape (rows + 1,)
    shape : (rows, columns)
    """
    from scipy.sparse import csr_matrix

    return compressed(csr_matrix, data, indices, indptr, shape)


def _csr(like: Rows, data: Array, indices: Array, indptr: Array, n_rows: int) -> Rows:
    out: Rows = compressed(type(like), data, indices, indptr, (n_rows, like.shape[1]))
    return out


def compressed(kind: Any, data: Array, indices: Array, indptr: Array, shape: tuple[int, ...]) -> Any:
    """Return a CSR or CSC matrix over arrays that fit, unchecked: SciPy's constructor takes longer than a small product."""
    if not kind.__module__.startswith("scipy"):
        out = kind(shape, dtype=data.dtype)
        out.data, out.indices, out.indptr = data, indices, indptr
        return out
    if kind not in _BLANK:
        _BLANK[kind] = vars(kind((1, 1)))
    out = kind.__new__(kind)
    vars(out).update(_BLANK[kind], data=data, indices=indices, indptr=indptr, _shape=shape)
    return out


def only_columns(x: CSR, columns: Array) -> CSR:
    """Return CSR rows with some of their columns, numbered anew; the others are left out.

    Parameters
    ----------
    x : CSR matrix of shape (n, F)
    columns : int array of shape (k,)
        Which, sorted.

    Examples
    --------
    >>> import numpy as np, scipy.sparse
    >>> x = scipy.sparse.csr_matrix([[1.0, 0, 2], [0, 3, 0]])
    >>> only_columns(x, np.array([0, 2])).toarray().tolist()
    [[1.0, 2.0], [0.0, 0.0]]
    """
    number = np.full(x.shape[1], -1, x.indices.dtype)
    number[columns] = np.arange(len(columns))
    indices, data, indptr = number[x.indices], x.data, x.indptr
    kept = indices >= 0
    if not kept.all():
        indptr = np.concatenate([[0], np.cumsum(kept)])[indptr].astype(indptr.dtype)
        indices, data = indices[kept], data[kept]
    return csr(data, indices, indptr, (x.shape[0], len(columns)))


def filled_columns(x: CSR) -> Array | None:
    """Return which columns of a CSR matrix hold anything, sorted, or None where that is no less than half of them."""
    filled = np.zeros(x.shape[1], bool)
    filled[x.indices] = True
    used = np.flatnonzero(filled)
    return used if 2 * len(used) < len(filled) else None


def own_copy(x: Array) -> Array:
    """Return a read-only copy of `x` in memory of this process, on large pages where the system gives them.

    A pass over 80 MB in a mapped file, on pages of 4 KB, takes a tenth longer: the processor looks up many more addresses.
    """
    if not x.nbytes or not hasattr(mmap, "MADV_HUGEPAGE"):
        copy = np.array(x)
    else:
        memory = mmap.mmap(-1, x.nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        with contextlib.suppress(OSError):  # a kernel without them
            memory.madvise(mmap.MADV_HUGEPAGE)
        copy = np.frombuffer(memory, x.dtype).reshape(x.shape)
        copy[...] = x
    copy.flags.writeable = False
    return copy
