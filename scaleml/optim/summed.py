"""Plain sum: the parameters are what one pass over the data adds up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from scaleml.arrays import Array
from scaleml.optim.base import Optimizer
from scaleml.optim.settings import set_unused

__all__ = ["Summed"]


@final
@dataclass(frozen=True, repr=False)
class Summed(Optimizer):
    """``w -= g``, of all rows: for models whose "gradient" is the negative of statistics that add over rows, such as `Moments`.

    Examples
    --------
    >>> import numpy as np
    >>> rule, w = Summed(), np.zeros(2)
    >>> rule.apply(w, np.array([-3.0, -1.0]), rule.init(2, w.dtype), t=1)
    >>> w.tolist()
    [3.0, 1.0]
    """

    takes_all_rows: ClassVar[bool] = True

    def __post_init__(self) -> None:
        set_unused(self, learning_rate=1.0, tol=0.0)

    def slots(self) -> tuple[str, ...]:
        """Return nothing."""
        return ()

    def update(self, w: Array, g: Array, slots: tuple[Array, ...], t: int, rate: float) -> None:
        """Update `w` in place."""
        w -= g
