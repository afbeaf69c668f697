"""AdamW: Adam with decoupled weight decay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

from scaleml.arrays import Array
from scaleml.optim.adam import check_moments, step
from scaleml.optim.base import Optimizer
from scaleml.optim.groups import Group
from scaleml.optim.schedules import Schedule
from scaleml.optim.settings import check_settings

__all__ = ["AdamW"]


@final
@dataclass(frozen=True, repr=False)
class AdamW(Optimizer):
    """AdamW: Adam with decoupled weight decay.

    ``w *= 1 - rate * weight_decay``, then `Adam`'s step of the gradient alone: the decay does not pass through the moments, so it is the
    same for parameters of small and of large gradients. As in PyTorch it is multiplied by the learning rate, with its schedule.

    Parameters
    ----------
    learning_rate : float
    weight_decay : float
        At least 0.
    beta_1, beta_2 : float
        At least 0 and below 1.
    epsilon : float
        Greater than 0.
    epsilon_hat : bool
        See `Adam`.
    no_decay : str or tuple of str
        Patterns of the names of parameters without weight decay: usually biases and the scales of norms, ``("*bias", "*norm*")``
        or, however these are called, ``"1d"``.
    schedule, power_t, alpha, clip_norm, tol, n_iter_no_change, groups
        See `Optimizer`.

    Raises
    ------
    ValueError
        A value breaks its rule.

    References
    ----------
    Loshchilov and Hutter: Decoupled weight decay regularization, 2019.

    Examples
    --------
    >>> import numpy as np
    >>> adam, w = AdamW(0.1, weight_decay=0.5), np.ones(2)
    >>> adam.apply(w, np.array([3.0, -4.0]), adam.init(2, w.dtype), t=1)
    >>> w.round(6).tolist()
    [0.85, 1.05]
    """

    learning_rate: float = 0.001
    weight_decay: float = 0.01
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    schedule: Literal["constant", "optimal", "invscaling", "adaptive"] | Schedule = "constant"
    power_t: float = 0.5
    alpha: float = 1e-4
    clip_norm: float | None = None
    tol: float = 1e-3
    n_iter_no_change: int = 5
    epsilon_hat: bool = False
    groups: tuple[Group, ...] = ()
    no_decay: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_settings(self)
        check_moments(self)

    def slots(self) -> tuple[str, ...]:
        """Return ``("first_moment", "second_moment")``."""
        return ("first_moment", "second_moment")

    def update(self, w: Array, g: Array, slots: tuple[Array, ...], t: int, rate: float) -> None:
        """Update `w` and the moments in place; see `Optimizer.update`."""
        if self.weight_decay:
            w *= 1 - rate * self.weight_decay
        step(self, w, g, slots, t, rate)
