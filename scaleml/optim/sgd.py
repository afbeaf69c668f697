"""Stochastic gradient descent, with momentum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

import numpy as np

from scaleml.arrays import Array, namespace
from scaleml.optim.base import Optimizer
from scaleml.optim.groups import Group
from scaleml.optim.schedules import Schedule
from scaleml.optim.settings import check_settings, set_number

__all__ = ["SGD"]


@final
@dataclass(frozen=True, repr=False)
class SGD(Optimizer):
    """Stochastic gradient descent, with momentum.

    ``w -= rate * g``; with momentum ``v = momentum * v + g`` and ``w -= rate * v``; with Nesterov's
    ``w -= rate * (g + momentum * v)``. This is PyTorch's form: the rate stands outside the velocity, so a new rate acts
    at once. scikit-learn's MLP keeps it inside (``v = momentum * v - rate * g``), which is the same at a constant rate.

    Parameters
    ----------
    learning_rate : float
    momentum : float
        At least 0 and below 1.
    nesterov : bool
        Needs momentum.
    schedule, power_t, alpha, clip_norm, tol, n_iter_no_change, weight_decay, groups, no_decay
        See `Optimizer`.

    Raises
    ------
    ValueError
        A value breaks its rule.

    References
    ----------
    Sutskever, Martens, Dahl and Hinton: On the importance of initialization and momentum in deep learning, 2013.

    Examples
    --------
    >>> import numpy as np
    >>> sgd, w = SGD(0.5), np.array([1.0, 2.0])
    >>> sgd.apply(w, np.array([1.0, -1.0]), sgd.init(2, w.dtype), t=1)
    >>> w.tolist()
    [0.5, 2.5]
    """

    learning_rate: float = 0.01
    momentum: float = 0.0
    nesterov: bool = False
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
        set_number(self, "momentum", 0, 1)
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov=True with momentum=0: it looks ahead along the momentum; use momentum=0.9, say.")

    def slots(self) -> tuple[str, ...]:
        """Return ``("velocity",)`` with momentum, else nothing."""
        return ("velocity",) if self.momentum else ()

    def update(self, w: Array, g: Array, slots: tuple[Array, ...], t: int, rate: float) -> None:
        """Update `w` and the velocity in place; see `Optimizer.update`."""
        if self.weight_decay:
            g += w * self.weight_decay
        if slots:
            (v,) = slots
            v *= self.momentum
            v += g
            if self.nesterov:
                g += v * self.momentum
            else:
                xp = np if type(v) is np.ndarray else namespace(v)
                xp.multiply(v, rate, out=g)
                w -= g
                return
        g *= rate
        w -= g
