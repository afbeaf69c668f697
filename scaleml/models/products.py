"""Products of a layer's first pass and its way back, where NumPy's and SciPy's own operators take longer than the arithmetic."""

from __future__ import annotations

from types import ModuleType

import numpy as np

from scaleml.arrays import CSR, Array, compressed


def product(xp: ModuleType, a: Array, b: Array, out: Array) -> None:
    """Write ``a @ b`` into `out`; NumPy's ``dot`` comes to the same product of BLAS in half the time, but converts nothing."""
    if xp is np and a.dtype == b.dtype == out.dtype:
        a.dot(b, out)
    else:
        xp.matmul(a, b, out=out)


def transposed_product(x: CSR, dy: Array) -> Array:
    """Return ``x.T @ dy`` for a CSR matrix (n, F): of shape (F,) or (F, K).

    Examples
    --------
    >>> import numpy as np, scipy.sparse
    >>> transposed_product(scipy.sparse.csr_matrix([[1.0, 0, 2], [0, 3, 0]]), np.array([1.0, 10.0])).tolist()
    [1.0, 30.0, 2.0]
    """
    if not type(x).__module__.startswith("scipy"):
        return x.T @ dy
    from scipy.sparse import csc_matrix

    found: Array = compressed(csc_matrix, x.data, x.indices, x.indptr, x.shape[::-1]) @ dy
    return found
