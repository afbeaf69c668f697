"""Adam: steps scaled by running moments of the gradient."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, final

from scaleml.arrays import Array, namespace
from scaleml.checks import check_flag
from scaleml.optim.base import Optimizer, check_settings, set_number

__all__ = ["Adam"]


@final
@dataclass(frozen=True, repr=False)
class Adam(Optimizer):
    """Adam: steps scaled by running moments of the gradient.

    ``m = beta_1 m + (1 - beta_1) g``; ``v = beta_2 v + (1 - beta_2) g^2``;
    ``w -= rate * m / (1 - beta_1^t) / (sqrt(v / (1 - beta_2^t)) + epsilon)``. This is the paper's algorithm 1 and
    PyTorch's. With `epsilon_hat` it is ``w -= rate * c * m / (sqrt(v) + epsilon)``, ``c = sqrt(1 - beta_2^t) / (1 - beta_1^t)``: the
    paper's section 2, which scikit-learn's perceptrons and TensorFlow take. In the first updates `epsilon` counts for more then.

    Parameters
    ----------
    learning_rate : float
    beta_1, beta_2 : float
        At least 0 and below 1.
    epsilon : float
        Greater than 0.
    epsilon_hat : bool
        Whether `epsilon` is added before v is corrected.
    schedule, power_t, alpha, clip_norm, tol, n_iter_no_change
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
    schedule: Literal["constant", "optimal", "invscaling", "adaptive"] = "constant"
    power_t: float = 0.5
    alpha: float = 1e-4
    clip_norm: float | None = None
    tol: float = 1e-3
    n_iter_no_change: int = 5
    epsilon_hat: bool = False

    def __post_init__(self) -> None:
        check_settings(self)
        set_number(self, "beta_1", 0, 1)
        set_number(self, "beta_2", 0, 1)
        set_number(self, "epsilon", 0, open_low=True)
        check_flag("epsilon_hat", self.epsilon_hat)

    def slots(self) -> tuple[str, ...]:
        """Return ``("first_moment", "second_moment")``."""
        return ("first_moment", "second_moment")

    def update(self, w: Array, g: Array, slots: tuple[Array, ...], t: int, rate: float) -> None:
        """Update `w` and the moments in place; see `Optimizer.update`."""
        m, v = slots
        m *= self.beta_1
        m += g * (1 - self.beta_1)
        g *= g
        g *= 1 - self.beta_2
        v *= self.beta_2
        v += g
        namespace(v).sqrt(v, out=g)
        if self.epsilon_hat:
            g += self.epsilon
            step = m * (rate * math.sqrt(1 - self.beta_2**t) / (1 - self.beta_1**t))
            step /= g
            w -= step
            return
        g *= (1 - self.beta_2**t) ** -0.5
        g += self.epsilon
        step = m / g
        step *= rate / (1 - self.beta_1**t)
        w -= step
