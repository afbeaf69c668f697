"""Averaged stochastic gradient descent: the mean of the parameters along the way."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Self, final

from scaleml.arrays import Array
from scaleml.checks import check_integer
from scaleml.optim.base import Optimizer

__all__ = ["Averaged"]

_INNER: Final = (
    *("learning_rate", "schedule", "power_t", "alpha", "clip_norm", "tol", "n_iter_no_change"),
    *("weight_decay", "groups", "no_decay"),
)
"""What is the inner optimizer's."""


@final
@dataclass(frozen=True, repr=False)
class Averaged(Optimizer):
    """Polyak and Ruppert's averaging around another optimizer.

    Training goes on as without it; what comes out is ``a``, with ``a += (w - a) / k`` after the k-th of the updates
    from `start` on. A run that ends before update `start` gives the parameters as they are.

    Parameters
    ----------
    optimizer : Optimizer
        What takes the steps.
    start : int
        The first update whose result counts, at least 1.

    Raises
    ------
    ValueError
        `optimizer` is none, or averages itself, or `start` is not a positive integer.

    References
    ----------
    Polyak and Juditsky: Acceleration of stochastic approximation by averaging, 1992.

    Examples
    --------
    >>> import numpy as np
    >>> from scaleml.optim import SGD
    >>> rule, w = Averaged(SGD(1.0)), np.array([4.0])
    >>> state = rule.init(1, w.dtype)
    >>> for t in (1, 2):
    ...     rule.apply(w, np.array([1.0]), state, t)
    >>> w.tolist(), rule.result(w, state, 2).tolist()
    ([2.0], [2.5])
    """

    optimizer: Optimizer
    start: int = 1

    def __post_init__(self) -> None:
        if not isinstance(self.optimizer, Optimizer) or isinstance(self.optimizer, Averaged):
            raise ValueError(
                f"optimizer={self.optimizer!r}: must be an optimizer that does not average, such as SGD(0.1)"
            )
        rule = "a positive integer, the first update that counts"
        object.__setattr__(self, "start", check_integer("start", self.start, 1, rule=rule))
        for name in _INNER:
            object.__setattr__(self, name, getattr(self.optimizer, name))

    def slots(self) -> tuple[str, ...]:
        """Return the inner optimizer's arrays and ``"average"``."""
        return (*self.optimizer.slots(), "average")

    def update(self, w: Array, g: Array, slots: tuple[Array, ...], t: int, rate: float) -> None:
        """Update `w` as the inner optimizer does, then the average; see `Optimizer.update`."""
        *inner, average = slots
        self.optimizer.update(w, g, tuple(inner), t, rate)
        count = t - self.start + 1
        if count == 1:
            average[...] = w
        elif count > 1:
            change = w - average
            change /= count
            average += change

    def with_rate(self, learning_rate: float) -> Self:
        """Return the same with another learning rate."""
        return replace(self, optimizer=self.optimizer.with_rate(learning_rate))

    def with_decay(self, weight_decay: float) -> Self:
        """Return the same with another weight decay."""
        return replace(self, optimizer=self.optimizer.with_decay(weight_decay))

    def result(self, w: Array, state: dict[str, Array], t: int) -> Array:
        """Return the average, from update `start` on."""
        return state["average"] if t >= self.start else w
