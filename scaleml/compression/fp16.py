"""Half precision: two bytes an item."""

from __future__ import annotations

from dataclasses import dataclass
from math import frexp
from typing import ClassVar, final

import numpy as np
from numpy.typing import DTypeLike

from scaleml.arrays import Array, namespace
from scaleml.comm.communicator import Communicator
from scaleml.compression.base import NO_CONTEXT, Codec, CodecContext, check_finite
from scaleml.compression.exchange import sum_whole

SHIFT = 15  # the largest item comes to lie below 2 ** 15; half precision ends at 65504
BLOCK = 1 << 14  # items at a time: they stay in the cache
MOST = 120  # so that the factor itself is a float32
LEAST = SHIFT - 1024  # for the largest float64


@final
@dataclass(frozen=True, repr=False)
class FP16(Codec):
    """Half precision, scaled by a power of two so that nothing overflows: 50% of float32's bytes.

    ::

        s <- the power of two with  2^14 <= s max|x| < 2^15
        payload <- s, float16(s x)

    An item loses at most ``2^-11`` of itself; items more than ``2^29`` times smaller than the largest lose more.

    Examples
    --------
    >>> import numpy as np
    >>> from scaleml.compression import FP16
    >>> x, out = np.array([1e6, 3.0], np.float32), np.empty(2, np.float32)
    >>> payload = FP16().encode(x)
    >>> FP16().decode(payload, out)
    >>> len(payload), out.tolist()
    (8, [999936.0, 3.0])

    References
    ----------
    Micikevicius et al., Mixed precision training, ICLR 2018, arXiv:1710.03740.
    """

    code: ClassVar[int] = 1

    def nbytes(self, n: int, dtype: DTypeLike, context: CodecContext = NO_CONTEXT) -> int:
        """Return 2 bytes an item, and 4 for the scale."""
        return 4 + 2 * n

    def encode(
        self,
        x: Array,
        context: CodecContext = NO_CONTEXT,
        lost: Array | None = None,
        state: dict[str, Array] | None = None,
    ) -> Array:
        """Return the scale and the halves."""
        check_finite(x, context)
        xp, n = namespace(x), len(x)
        payload = xp.empty(self.nbytes(n, x.dtype), np.uint8)
        largest = max(float(x.max()), -float(x.min())) if n else 0.0
        shift = min(SHIFT - frexp(largest)[1], MOST)
        payload[:4].view(np.int32)[:] = shift
        halves = payload[4:].view(np.float16)
        up, down = x.dtype.type(2.0**shift), x.dtype.type(2.0**-shift)
        for start in range(0, n, BLOCK):
            own = slice(start, start + BLOCK)
            xp.multiply(x[own], up, out=halves[own])
            if lost is not None:
                xp.subtract(x[own], halves[own] * down, out=lost[own])
        return payload

    def decode(self, payload: Array, out: Array, context: CodecContext = NO_CONTEXT) -> None:
        """Write the halves, scaled back."""
        self._check(payload, out, context)
        shift = int(payload[:4].view(np.int32)[0])
        if not LEAST <= shift <= MOST:
            raise ValueError(f"no vector of halves is scaled by 2 ** {shift}: that is no payload of FP16()")
        namespace(out).multiply(payload[4:].view(np.float16), out.dtype.type(2.0**-shift), out=out)

    def _sum(
        self, p: Array, out: Array, group: Communicator, state: dict[str, Array], context: CodecContext, factor: float
    ) -> None:
        sum_whole(self, p, out, group, state, context, factor)
