"""The largest items, with their places."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final, final

import numpy as np
from numpy.typing import DTypeLike

from scaleml.arrays import Array, namespace
from scaleml.comm.communicator import Communicator
from scaleml.compression.base import NO_CONTEXT, Codec, CodecContext, check_finite, check_ratio, kept_items
from scaleml.compression.exchange import gather

BLOCK: Final = 1 << 16
"""Items whose places differ in 16 bits; how many were taken of each block says the rest."""


@final
@dataclass(frozen=True, repr=False)
class TopK(Codec):
    """The share `ratio` of the items that are largest in magnitude: at 0.01, 1.5% of float32's bytes.

    ::

        payload <- the k = ratio n largest of |x|, and where they are
        decoded:  these, 0 elsewhere;   |x - decoded|^2 <= (1 - k / n) |x|^2

    A place takes 2 bytes. Each rank sends its payload to all others, so that with many ranks bytes grow with their
    number; ties go to the first.

    Parameters
    ----------
    ratio : float
        Above 0, at most 1. At least one item is sent.

    Raises
    ------
    ValueError
        For another ratio.

    Examples
    --------
    >>> import numpy as np
    >>> from scaleml.compression import TopK
    >>> x, out = np.array([0.1, -3.0, 2.0, 0.2], np.float32), np.empty(4, np.float32)
    >>> payload = TopK(0.5).encode(x)
    >>> TopK(0.5).decode(payload, out)
    >>> len(payload), out.tolist()
    (16, [0.0, -3.0, 2.0, 0.0])

    References
    ----------
    Lin et al., Deep gradient compression, ICLR 2018, arXiv:1712.01887.
    Stich, Cordonnier and Jaggi, Sparsified SGD with memory, NeurIPS 2018, arXiv:1809.07599.
    """

    code: ClassVar[int] = 4
    ratio: float = 0.01

    def __post_init__(self) -> None:
        check_ratio(self.ratio)

    def nbytes(self, n: int, dtype: DTypeLike, context: CodecContext = NO_CONTEXT) -> int:
        """Return a value and 2 bytes of place an item, and 4 bytes a block."""
        return kept_items(self.ratio, n) * (np.dtype(dtype).itemsize + 2) + 4 * -(-n // BLOCK)

    def encode(
        self,
        x: Array,
        context: CodecContext = NO_CONTEXT,
        lost: Array | None = None,
        state: dict[str, Array] | None = None,
    ) -> Array:
        """Return the values, how many there are of each block, and their places in it."""
        check_finite(x, context)
        xp, n = namespace(x), len(x)
        payload = xp.empty(self.nbytes(n, x.dtype), np.uint8)
        values, counts, places = self._open(payload, n, x.dtype)
        where = _largest(x, len(values))
        values[:] = x[where]
        counts[:] = xp.bincount(where // BLOCK, minlength=len(counts))
        places[:] = where % BLOCK
        if lost is not None:
            if lost is not x:
                lost[:] = x
            lost[where] = 0
        return payload

    def decode(self, payload: Array, out: Array, context: CodecContext = NO_CONTEXT) -> None:
        """Write the values at their places, 0 elsewhere."""
        self._check(payload, out, context)
        out[:] = 0
        self._add(payload, out)

    def _add(self, payload: Array, out: Array) -> None:
        xp = namespace(out)
        values, counts, places = self._open(payload, len(out), out.dtype)
        block = xp.searchsorted(xp.cumsum(counts), xp.arange(len(values)), side="right")
        where = block * BLOCK + places
        if xp is np and len(where) and not 0 <= where.min() <= where.max() < len(out):  # a GPU would be waited for
            raise ValueError(f"a payload of {self} has places that are none of {len(out)} items")
        out[where] += values  # no place stands twice in a payload

    def _sum(
        self, p: Array, out: Array, group: Communicator, state: dict[str, Array], context: CodecContext, factor: float
    ) -> None:
        payloads = gather(self, self.encode(p, context, p), group)
        out[:] = 0
        for payload in payloads:
            self._add(payload, out)

    def _open(self, payload: Array, n: int, dtype: DTypeLike) -> tuple[Array, Array, Array]:
        """Return views of the values, of the counts of each block, and of the places."""
        k = kept_items(self.ratio, n)
        middle = k * np.dtype(dtype).itemsize
        end = len(payload) - 2 * k
        return payload[:middle].view(dtype), payload[middle:end].view(np.int32), payload[end:].view(np.uint16)


def _largest(x: Array, k: int) -> Array:
    """Return the places of the `k` largest items of |x| in rising order; of equal ones the first."""
    xp, n = namespace(x), len(x)
    if k == n:
        return xp.arange(n)
    sizes = abs(x)
    count = int(xp.count_nonzero(sizes))
    if count <= k:
        first = xp.flatnonzero(sizes == 0)[: k - count]
        return xp.sort(xp.concatenate([xp.flatnonzero(sizes), first]))
    # Among many equal items, as zeros are, a partition takes thirty times as long.
    some = sizes if 2 * count > n else sizes[xp.flatnonzero(sizes)]
    threshold = xp.partition(some, len(some) - k)[len(some) - k]
    where = xp.flatnonzero(sizes >= threshold)
    surplus = len(where) - k
    if surplus:
        ties = xp.flatnonzero(sizes[where] == threshold)
        keep = xp.ones(len(where), np.bool_)
        keep[ties[len(ties) - surplus :]] = False
        where = where[keep]
    return where
