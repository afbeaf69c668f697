"""Footprint: the arrays as long as the parameters that a rank holds, counted before any of them is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, final

from scaleml.compression import Codec
from scaleml.models.flat_model import FlatModel
from scaleml.optim import Optimizer
from scaleml.strategies import AllReduce, LocalSGD, Serial, Strategy

_COPIES: Final = 4
"""Copies that come and go: what is evaluated, kept for a failure, on its way, scratch. Measured with 25 million parameters, peak
beside the process as such: 6.0 arrays with SGD, 8.1 with Adam, 8.1 with SGD and a codec, 9.1 with momentum inside and outside."""
_MORE_COPIES: Final = 8
"""The same with servers, neighbours or shared memory, whose pages count in each process that has them."""


@final
@dataclass(frozen=True)
class Footprint:
    """What a rank that trains holds of the size of the parameters.

    Parameters
    ----------
    size : int
        Parameters.
    nbytes : int
        Bytes of an array of them.
    parts : tuple of (str, int)
        What is held, in words, and how many such arrays that is.

    Examples
    --------
    >>> from scaleml import MLP, AllReduce
    >>> from scaleml.models import Signature
    >>> from scaleml.optim import Adam
    >>> deep = MLP((10**6, 10**6)).build(Signature(20))
    >>> found = Footprint.of(deep, AllReduce(), Adam())
    >>> found.total, found.parts[:3]
    (32000736000032, (('parameters', 1), ('gradient', 1), ("Adam's slots", 2)))
    """

    size: int
    nbytes: int
    parts: tuple[tuple[str, int], ...]

    @classmethod
    def of(cls, model: FlatModel, strategy: Strategy, optimizer: Optimizer, *, accumulates: bool = False) -> Footprint:
        """Count what is needed to train a model so; `accumulates` says whether a gradient is added up of its batch's parts."""
        # What steps on all rows keeps its slots in float64, and sums parts of a gradient in it.
        slots = len(optimizer.slots()) + 2 if optimizer.takes_all_rows else len(optimizer.slots())
        slots *= 8 // model.dtype.itemsize if optimizer.takes_all_rows else 1
        parts = [("parameters", 1), ("gradient", 1), (f"{type(optimizer).__name__}'s slots", slots)]
        if accumulates and not optimizer.takes_all_rows:
            parts.append(("sums of micro-batches in float64", 8 // model.dtype.itemsize))
        if isinstance(getattr(strategy, "compression", None), Codec):
            parts.append(("what the codec keeps and sends", 2))
        outer = getattr(strategy, "outer", None)
        if isinstance(outer, Optimizer):
            parts.append(("the last average and the outer optimizer's slots", 1 + len(outer.slots())))
        lean = isinstance(strategy, Serial | AllReduce | LocalSGD)
        parts.append(("copies that come and go", _COPIES if lean else _MORE_COPIES))
        return cls(model.size, model.size * model.dtype.itemsize, tuple(part for part in parts if part[1]))

    @property
    def total(self) -> int:
        """Bytes of all of it."""
        return self.nbytes * sum(count for _, count in self.parts)
