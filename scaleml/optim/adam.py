"""Adam: steps scaled by running moments of the gradient."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol, final

from scaleml.arrays import Array, namespace
from scaleml.checks import check_flag
from scaleml.optim.base import Optimizer
from scaleml.optim.groups import Group
from scaleml.optim.schedules import Schedule
from scaleml.optim.settings import check_settings, set_number

__all__ = ["Adam"]


class Moments(Protocol):
    """The settings of a rule with running moments of the gradient."""

    @property
    def beta_1(self) -> float: ...
    @property
    def beta_2(self) -> float: ...
    @property
    def epsilon(self) -> float: ...
    @property
    def epsilon_hat(self) -> bool: ...


@final
@dataclass(frozen=True, repr=False)
class Adam(Optimizer):
    """Adam: steps scaled by running moments of the gradient.

    ``m = beta_1 m + (1 - beta_1) g``; ``v = beta_2 v + (1 - beta_2) g^2``;
    ``w -= rate * m / (1 - beta_1^t) / (sqrt(v / (1 - beta_2^t)) + epsilon)``. This is the paper's algorithm 1 and
    PyTorch's. With `epsilon_hat` it is ``w -= rate * c * m / (sqrt(v) + epsilon)``, ``c = sqrt(1 - beta_2^t) / (1 - beta_1^t)``: the
    paper's section 2, which scikit-learn's perceptrons and TensorFlow take. In the first updates `epsilon` counts for more then.
    `weight_decay` goes through the moments here, as an L2 penalty does; `AdamW` decouples it.

    Parameters
    ----------
    learning_rate : float
    beta_1, beta_2 : float
        At least 0 and below 1.
    epsilon : float
        Greater than 0.
    epsilon_hat : bool
        Whether `epsilon` is added before v is corrected.
    schedule, power_t, alpha, clip_norm, tol, n_iter_no_change, weight_decay, groups, no_decay
        See `Optimizer`.

    Raises
    ------
    ValueError
        A value breaks its rule.

    References
    ----------
    Kingma and Ba: Adam: a method for stochastic optimization, 2015.

    Examples
    --------
    >>> import numpy as np
    >>> adam, w = Adam(0.1), np.zeros(2)
    >>> adam.apply(w, np.array([3.0, -4.0]), adam.init(2, w.dtype), t=1)
    >>> w.round(6).tolist()
    [-0.1, 0.1]
    """

    learning_rate: float = 0.001
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
    weight_decay: float = 0.0
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
            g += w * self.weight_decay
        step(self, w, g, slots, t, rate)


def check_moments(rule: Optimizer) -> None:
    """Check the settings that Adam and `AdamW` share."""
    set_number(rule, "beta_1", 0, 1)
    set_number(rule, "beta_2", 0, 1)
    set_number(rule, "epsilon", 0, open_low=True)
    check_flag("epsilon_hat", rule.epsilon_hat)  # type: ignore[attr-defined]


def step(rule: Moments, w: Array, g: Array, slots: tuple[Array, ...], t: int, rate: float) -> None:
    """Take the step of Adam and of `AdamW` in place, without any weight decay; ``g`` is scratch."""
    m, v = slots
    m *= rule.beta_1
    m += g * (1 - rule.beta_1)
    g *= g
    g *= 1 - rule.beta_2
    v *= rule.beta_2
    v += g
    namespace(v).sqrt(v, out=g)
    if rule.epsilon_hat:
        g += rule.epsilon
        change = m * (rate * math.sqrt(1 - rule.beta_2**t) / (1 - rule.beta_1**t))
        change /= g
        w -= change
        return
    g *= (1 - rule.beta_2**t) ** -0.5
    g += rule.epsilon
    change = m / g
    change *= rate / (1 - rule.beta_1**t)
    w -= change
