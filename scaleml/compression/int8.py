"""Eight bits an item, rounded at random so that the mean is right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final, final

import numpy as np
from numpy.typing import DTypeLike

from scaleml.arrays import Array, namespace
from scaleml.comm.communicator import Communicator
from scaleml.compression.base import NO_CONTEXT, Codec, CodecContext, check_finite, tables
from scaleml.compression.exchange import sum_whole

CHUNK: Final = 512
"""Items with one scale."""
LEVELS: Final = 127
NEARLY: Final = 126.99
"""What the largest item of a chunk is scaled to: rounded up at random it stays below 128."""
ROWS: Final = (
    32  # chunks at a time: 64 KB stay in the cache, and are not mapped anew each time under Dask's allocator settings
)


@final
@dataclass(frozen=True, repr=False)
class Int8(Codec):
    """Eight bits with stochastic rounding, and one scale for every 512 items: 25.2% of float32's bytes.

    ::

        s <- max|x| / 127 of the chunk
        q_i <- floor(x_i / s + u_i),  u_i uniform in [0, 1)
        decoded:  s q_i

    Without bias, and ``E (s q_i - x_i)^2 <= s^2 / 4``. Random numbers depend on seed, rank and step alone.

    Examples
    --------
    >>> import numpy as np
    >>> from scaleml.compression import Int8
    >>> x, out = np.array([1.0, -0.5, 0.0], np.float32), np.empty(3, np.float32)
    >>> payload = Int8().encode(x)
    >>> Int8().decode(payload, out)
    >>> len(payload), bool(abs(out - x).max() < 1 / 126)
    (7, True)

    References
    ----------
    Alistarh et al., QSGD: communication-efficient SGD via gradient quantization and encoding, NIPS 2017,
    arXiv:1610.02132: buckets scaled by their largest item.
    """

    code: ClassVar[int] = 2

    def nbytes(self, n: int, dtype: DTypeLike, context: CodecContext = NO_CONTEXT) -> int:
        """Return a byte an item, and a scale a chunk."""
        return n + -(-n // CHUNK) * np.dtype(dtype).itemsize

    def encode(
        self,
        x: Array,
        context: CodecContext = NO_CONTEXT,
        lost: Array | None = None,
        state: dict[str, Array] | None = None,
    ) -> Array:
        """Return the scales, then the levels."""
        check_finite(x, context)
        xp, n = namespace(x), len(x)
        payload = xp.empty(self.nbytes(n, x.dtype), np.uint8)
        scales, levels = _open(payload, n, x.dtype)
        # 16 random bits an item make a bias of at most 2^-17 of a level, and a fifth of the time that floats take.
        bits = context.random().bit_generator
        smallest = np.finfo(x.dtype).tiny * LEVELS
        for row, table in tables(x, CHUNK, ROWS):
            place = slice(row * CHUNK, row * CHUNK + table.size)
            largest = xp.maximum(table.max(axis=1), -table.min(axis=1))
            # So small that its reciprocal overflows: sent as zeros.
            largest = xp.where(largest < smallest, np.inf, largest).astype(x.dtype)
            scaled = table * (NEARLY / largest)[:, None]
            dither = xp.asarray(bits.random_raw(-(-table.size // 4)).view(np.uint16)[: table.size])
            scaled += (dither.reshape(table.shape) + x.dtype.type(0.5)) * x.dtype.type(2.0**-16)
            xp.floor(scaled, out=scaled)
            own = scales[row : row + len(table)]
            own[:] = xp.where(xp.isinf(largest), 0, largest / x.dtype.type(NEARLY))
            levels[place] = scaled.reshape(-1)
            if lost is not None:
                scaled *= own[:, None]
                xp.subtract(x[place], scaled.reshape(-1), out=lost[place])
        return payload

    def decode(self, payload: Array, out: Array, context: CodecContext = NO_CONTEXT) -> None:
        """Write levels times scales."""
        self._check(payload, out, context)
        xp = namespace(out)
        scales, levels = _open(payload, len(out), out.dtype)
        for row, table in tables(out, CHUNK, ROWS):
            own = levels[row * CHUNK : row * CHUNK + table.size].reshape(table.shape)
            xp.multiply(own, scales[row : row + len(table), None], out=table)

    def _sum(
        self, p: Array, out: Array, group: Communicator, state: dict[str, Array], context: CodecContext, factor: float
    ) -> None:
        sum_whole(self, p, out, group, state, context, factor)


def _open(payload: Array, n: int, dtype: DTypeLike) -> tuple[Array, Array]:
    """Return views of the scales and of the levels."""
    end = len(payload) - n
    return payload[:end].view(dtype), payload[end:].view(np.int8)
