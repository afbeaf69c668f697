"""Items at random places, which need not be sent: all ranks draw the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
from numpy.typing import DTypeLike

from scaleml.arrays import Array, namespace
from scaleml.comm.communicator import Communicator
from scaleml.compression.base import NO_CONTEXT, Codec, CodecContext, check_finite, check_ratio, kept_items


@final
@dataclass(frozen=True, repr=False)
class RandomK(Codec):
    """The share `ratio` of the items, at places drawn anew each step: at 0.01, 1% of float32's bytes.

    ::

        S <- k = ratio n places, drawn from the run's seed and the step: the same on all ranks
        payload <- x_S;  decoded:  x_S, 0 elsewhere;   E |x - decoded|^2 = (1 - k / n) |x|^2

    All ranks send the same places, so their sum is an ordinary all-reduce of k items, whatever their number.

    An item waits for ``1 / ratio`` steps on average, and with servers as long again on its way back. What comes so late
    wants small learning rates: with servers, ratios above 0.2 or rates several times smaller; `TopK` bears far more.

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
    >>> from scaleml.compression import RandomK
    >>> x, out = np.arange(1.0, 9.0, dtype=np.float32), np.empty(8, np.float32)
    >>> payload = RandomK(0.25).encode(x)
    >>> RandomK(0.25).decode(payload, out)
    >>> len(payload), int((out == x).sum()), int((out == 0).sum())
    (8, 2, 6)

    References
    ----------
    Stich, Cordonnier and Jaggi, Sparsified SGD with memory, NeurIPS 2018, arXiv:1809.07599.
    """

    code: ClassVar[int] = 5
    ratio: float = 0.01

    def __post_init__(self) -> None:
        check_ratio(self.ratio)

    def nbytes(self, n: int, dtype: DTypeLike, context: CodecContext = NO_CONTEXT) -> int:
        """Return the bytes of the values."""
        return kept_items(self.ratio, n) * np.dtype(dtype).itemsize

    def encode(
        self,
        x: Array,
        context: CodecContext = NO_CONTEXT,
        lost: Array | None = None,
        state: dict[str, Array] | None = None,
    ) -> Array:
        """Return the values."""
        check_finite(x, context)
        where = self._places(x, context)
        values = x[where]
        if lost is not None:
            if lost is not x:
                lost[:] = x
            lost[where] = 0
        return values.view(np.uint8)

    def decode(self, payload: Array, out: Array, context: CodecContext = NO_CONTEXT) -> None:
        """Write the values at their places, 0 elsewhere."""
        self._check(payload, out, context)
        out[:] = 0
        out[self._places(out, context)] = payload.view(out.dtype)

    def _sum(
        self, p: Array, out: Array, group: Communicator, state: dict[str, Array], context: CodecContext, factor: float
    ) -> None:
        values = self.encode(p, context, p)
        group.allreduce(values.view(p.dtype))
        self.decode(values, out, context)

    def _places(self, x: Array, context: CodecContext) -> Array:
        places = context.shared_random().choice(len(x), kept_items(self.ratio, len(x)), replace=False, shuffle=False)
        places.sort()  # neighbours in memory are read together
        return namespace(x).asarray(places)
