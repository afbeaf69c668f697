"""AdaGrad: a learning rate a parameter, falling with the squares of its gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

from scaleml.arrays import Array, namespace
from scaleml.optim.base import Optimizer
from scaleml.optim.groups import Group
from scaleml.optim.schedules import Schedule
from scaleml.optim.settings import check_settings, set_number

__all__ = ["AdaGrad"]


@final
@dataclass(frozen=True, repr=False)
class AdaGrad(Optimizer):
    """AdaGrad: a learning rate a parameter, falling with the squares of its gradients.

    ``s += g^2``; ``w -= rate * g / (sqrt(s) + epsilon)``. It suits sparse gradients and stale ones.

    Parameters
    ----------
    learning_rate : float
    epsilon : float
        Greater than 0.
    schedule, power_t, alpha, clip_norm, tol, n_iter_no_change, weight_decay, groups, no_decay
        See `Optimizer`.

    Raises
    ------
    ValueError
        A value breaks its rule.

    References
    ----------
    Duchi, Hazan and Singer: Adaptive subgradient methods for online learning and stochastic optimization, 2011.

    Examples
    --------
    >>> import numpy as np
    >>> adagrad, w = AdaGrad(0.1), np.zeros(2)
    >>> adagrad.apply(w, np.array([3.0, -4.0]), adagrad.init(2, w.dtype), t=1)
    >>> w.round(6).tolist()
    [-0.1, 0.1]
    """

    learning_rate: float = 0.01
    epsilon: float = 1e-10
    schedule: Literal["constant", "optimal", "invscaling", "adaptive"] | Schedule = "constant"
    power_t: float = 0.5
    alpha: float = 1e-4
    clip_norm: float | None = None
    tol: float = 1e-3
    n_iter_no_change: int = 5
    weight_decay: float = 0.0
    groups: tuple[Group, ...] = ()
    no_decay: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_settings(self)
        set_number(self, "epsilon", 0, open_low=True)

    def slots(self) -> tuple[str, ...]:
        """Return ``("sum_of_squares",)``."""
        return ("sum_of_squares",)

    def update(self, w: Array, g: Array, slots: tuple[Array, ...], t: int, rate: float) -> None:
        """Update `w` and the sum of squares in place; see `Optimizer.update`."""
        if self.weight_decay:
            g += w * self.weight_decay
        (s,) = slots
        s += g * g
        g *= rate
        root = namespace(s).sqrt(s)
        root += self.epsilon
        g /= root
        w -= g
