"""The sign alone, and two magnitudes a chunk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final, final

import numpy as np
from numpy.typing import DTypeLike

from scaleml.arrays import Array, namespace
from scaleml.comm.communicator import Communicator
from scaleml.compression.base import NO_CONTEXT, Codec, CodecContext, check_finite, tables
from scaleml.compression.exchange import sum_whole

CHUNK: Final = 1024
"""Items with the same two magnitudes; a multiple of 8."""
ROWS: Final = (
    16  # chunks at a time: 64 KB stay in the cache, and are not mapped anew each time under Dask's allocator settings
)


@final
@dataclass(frozen=True, repr=False)
class OneBit(Codec):
    """One bit an item, and two magnitudes for every 1024: 3.4% of float32's bytes.

    ::

        decoded:  the mean of the chunk's items that are >= 0 for each of these, the mean of the others for each of those

    These two numbers lose least in squares. Of a chunk of d items, ``|x|^2 - |x|_1^2 / d`` is lost at most. It trains
    only because what is lost is sent later.

    Examples
    --------
    >>> import numpy as np
    >>> from scaleml.compression import OneBit
    >>> x, out = np.array([1.0, 3.0, -0.5, -1.5], np.float32), np.empty(4, np.float32)
    >>> payload = OneBit().encode(x)
    >>> OneBit().decode(payload, out)
    >>> len(payload), out.tolist()
    (9, [2.0, 2.0, -1.0, -1.0])

    References
    ----------
    Seide et al., 1-bit stochastic gradient descent and its application to data-parallel distributed training of
    speech DNNs, Interspeech 2014.
    Karimireddy et al., Error feedback fixes SignSGD and other gradient compression schemes, ICML 2019, arXiv:1901.09847.
    """

    code: ClassVar[int] = 3

    def nbytes(self, n: int, dtype: DTypeLike, context: CodecContext = NO_CONTEXT) -> int:
        """Return a bit an item, and two magnitudes a chunk."""
        return -(-n // 8) + -(-n // CHUNK) * 2 * np.dtype(dtype).itemsize

    def encode(
        self,
        x: Array,
        context: CodecContext = NO_CONTEXT,
        lost: Array | None = None,
        state: dict[str, Array] | None = None,
    ) -> Array:
        """Return the magnitudes, then the bits."""
        check_finite(x, context)
        xp, n = namespace(x), len(x)
        payload = xp.empty(self.nbytes(n, x.dtype), np.uint8)
        means, bits = _open(payload, n, x.dtype)
        for row, table in tables(x, CHUNK, ROWS):
            above = table >= 0
            count = above.sum(axis=1)
            # In float64: the sum of a thousand finite numbers is finite, too.
            high = xp.maximum(table, 0).sum(axis=1, dtype=np.float64) / xp.maximum(count, 1)
            low = xp.minimum(table, 0).sum(axis=1, dtype=np.float64) / xp.maximum(table.shape[1] - count, 1)
            own = means[row : row + len(table)]
            own[:, 0], own[:, 1] = high, low
            packed = xp.packbits(above.reshape(-1))
            bits[row * CHUNK // 8 : row * CHUNK // 8 + len(packed)] = packed
            if lost is not None:
                xp.subtract(table, _decoded(above, own), out=_like(lost, row, table))
        return payload

    def decode(self, payload: Array, out: Array, context: CodecContext = NO_CONTEXT) -> None:
        """Write the magnitudes by the bits."""
        self._check(payload, out, context)
        xp = namespace(out)
        means, bits = _open(payload, len(out), out.dtype)
        above = xp.unpackbits(bits).view(np.bool_)
        for row, table in tables(out, CHUNK, ROWS):
            own = means[row : row + len(table)]
            table[:] = _decoded(_like(above, row, table), own)

    def _sum(
        self, p: Array, out: Array, group: Communicator, state: dict[str, Array], context: CodecContext, factor: float
    ) -> None:
        sum_whole(self, p, out, group, state, context, factor)


def _open(payload: Array, n: int, dtype: DTypeLike) -> tuple[Array, Array]:
    """Return views of the magnitudes, (chunks, 2), and of the bits."""
    end = len(payload) - -(-n // 8)
    return payload[:end].view(dtype).reshape(-1, 2), payload[end:]


def _decoded(above: Array, means: Array) -> Array:
    """Return the magnitudes by the bits: a product, for choosing by random bits takes several times as long."""
    decoded = above * (means[:, :1] - means[:, 1:])
    decoded += means[:, 1:]
    return decoded


def _like(x: Array, row: int, table: Array) -> Array:
    """Return the items of `x` that belong to a table of chunks, in its shape."""
    return x[row * CHUNK : row * CHUNK + table.size].reshape(table.shape)
