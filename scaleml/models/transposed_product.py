"""The product on the way back through a first layer of CSR rows, where SciPy's operators take longer than the arithmetic."""

from __future__ import annotations

from scaleml.arrays import CSR, Array, compressed


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
