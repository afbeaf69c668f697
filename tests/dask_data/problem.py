"""The rows that tests of Dask collections train on, and collections of them."""

from typing import Any

import dask.array as da
import numpy as np
import scipy.sparse

RNG = np.random.default_rng(5)
ROWS = 500
DENSE = RNG.standard_normal((ROWS, 6))
CSR = scipy.sparse.random(ROWS, 40, 0.2, format="csr", random_state=1)
LETTERS = np.array(["ant", "bee", "cow"])[np.argmax(DENSE[:, :3], axis=1)]
TWO = DENSE[:, 0] > 0
NUMBERS = DENSE @ np.arange(6.0)
CHUNKS = (200, 100, 150, 50)


def unknown(array: Any) -> Any:
    """The same array, its chunk sizes forgotten."""
    out = array.copy()
    out._chunks = (tuple(np.nan for _ in array.chunks[0]), *array.chunks[1:])
    return out


def csr(chunks: tuple[int, ...] = CHUNKS) -> Any:
    return da.from_array(CSR.toarray(), chunks=(chunks, -1)).map_blocks(scipy.sparse.csr_matrix)


def dense(chunks: Any = CHUNKS, columns: Any = -1) -> Any:
    return da.from_array(DENSE, chunks=(chunks, columns))


def column(values: Any, chunks: Any = CHUNKS) -> Any:
    return da.from_array(np.asarray(values), chunks=chunks)
