"""Optimizer base: frozen settings, learning-rate schedules, and an update of part of the parameters."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Any, ClassVar, Self, final

import numpy as np

from scaleml.arrays import PART, Array, namespace
from scaleml.checks import check_integer, check_number, check_option
from scaleml.representation import call_of

__all__ = ["Optimizer", "clip"]

SCHEDULES = ("constant", "optimal", "invscaling", "adaptive")
# "adaptive" stops dividing here, as scikit-learn's SGD does.
SMALLEST_RATE = 1e-6
SLOWER = 5

Where = slice | Array | None


class Optimizer(ABC):
    """An update rule with its settings; its state lies apart, in a dict of arrays that are as long as the parameters.

    The arithmetic is element by element, so that updating the parts of the vector one after the other, in any order
    and by whichever rank, gives the bits of updating it whole.

    Parameters
    ----------
    learning_rate : float
        Greater than 0.
    schedule : {"constant", "optimal", "invscaling", "adaptive"}
        The learning rate of update t = 1, 2, ..., by scikit-learn's names and formulas: `learning_rate`;
        ``1 / (alpha * (t0 + t - 1))`` with Bottou's ``t0 = alpha ** -0.75``; ``learning_rate / t ** power_t``;
        `learning_rate`, divided by 5 whenever the loss of `n_iter_no_change` epochs has not improved by `tol`. An
        update is one batch here and one row there.
    power_t, alpha : float
        Of the schedules; `alpha` is the model's, and penalises nothing here.
    clip_norm : float or None
        Largest Euclidean norm of the whole gradient. `apply` does not see to it, for a part of the gradient does not
        know the norm: who holds the whole one calls `clip` first.
    tol : float
    n_iter_no_change : int

    Attributes
    ----------
    takes_all_rows : bool
        Whether a step is of all rows, never of a batch, and of the loss as much as of its gradient; see `LBFGS`.
    """

    takes_all_rows: ClassVar[bool] = False

    learning_rate: float
    schedule: str
    power_t: float
    alpha: float
    clip_norm: float | None
    tol: float
    n_iter_no_change: int

    def __repr__(self) -> str:
        """Return the call that makes it: the first setting, and those that are not at their default."""
        return call_of(self)

    @abstractmethod
    def slots(self) -> tuple[str, ...]:
        """Return the names of the arrays, each as long as the parameters, that the rule keeps."""

    @abstractmethod
    def update(self, w: Array, g: Array, slots: tuple[Array, ...], t: int, rate: float) -> None:
        """Update `w` and the arrays of `slots`, all of g's shape (m,), in place; `g` is scratch."""

    def init(self, size: int, dtype: str | np.dtype[Any], like: Array | None = None) -> dict[str, Array]:
        """Return the state before the first update.

        Parameters
        ----------
        size : int
            P, the number of parameters.
        dtype : dtype
            Theirs.
        like : array, optional
            The state lies where this array does: on the CPU or on a GPU.

        Returns
        -------
        dict of arrays
            Zeros of shape (P,) by name; for ``"adaptive"`` also ``"schedule"``, always in NumPy: float64 (3,) of the
            rate's divisor, the best loss, and the number of epochs without improvement.
        """
        xp = namespace(like)
        state: dict[str, Array] = {name: xp.zeros(size, dtype) for name in self.slots()}
        if self.schedule == "adaptive":
            state["schedule"] = np.array([1.0, math.inf, 0.0])
        return state

    @final
    def rate(self, t: int, state: dict[str, Array], scale: float = 1.0) -> float:
        """Return the learning rate of update `t` (the first is 1), times `scale`."""
        if self.schedule == "constant":
            return self.learning_rate * scale
        if self.schedule == "invscaling":
            return scale * self.learning_rate / t**self.power_t
        if self.schedule == "optimal":
            return scale / (self.alpha * (self.alpha**-0.75 + t - 1))
        return scale * self.learning_rate / float(state["schedule"][0])

    def with_rate(self, learning_rate: float) -> Self:
        """Return the same optimizer with another learning rate; its state goes on."""
        return replace(self, learning_rate=learning_rate)  # type: ignore[type-var]  # every subclass is a dataclass

    @final
    def apply(
        self, w: Array, g: Array, state: dict[str, Array], t: int, where: Where = None, rate: float | None = None
    ) -> None:
        """Apply update `t` with gradient `g`, in place.

        Parameters
        ----------
        w : array of shape (P,)
        g : array of shape (P,), or of the length of `where`
            The gradient of the objective: divided by the batch's weight, penalty included, clipped. Overwritten.
        state : dict of arrays
            From `init`; updated where `where` says and left alone elsewhere.
        t : int
            1 for the first update.
        where : slice or integer array, optional
            The part of the vector to update; all of it if not given. No index may stand twice in an array.
        rate : float, optional
            ``self.rate(t, state)`` if not given.
        """
        # A NumPy scalar would lift the arithmetic to float64.
        rate = self.rate(t, state) if rate is None else float(rate)
        slots = tuple(map(state.__getitem__, self.slots()))
        if where is None and len(g) <= PART:
            self.update(w, g, slots, t, rate)
        elif where is None:
            self._update_chunks(w, g, slots, t, rate)
        elif isinstance(where, slice):
            self._update_chunks(w[where], g, tuple([slot[where] for slot in slots]), t, rate)
        else:
            part, parts = w[where], tuple([slot[where] for slot in slots])  # copies
            self.update(part, g, parts, t, rate)
            w[where] = part
            for slot, values in zip(slots, parts, strict=True):
                slot[where] = values

    @final
    def observe_epoch(self, loss: float, state: dict[str, Array]) -> None:
        """Tell the schedule ``"adaptive"`` the mean training loss of an epoch; others take no notice.

        Parameters
        ----------
        loss : float
            The same on all ranks, or their rates part.
        state : dict of arrays
        """
        if self.schedule != "adaptive":
            return
        divisor, best, stale = (float(value) for value in state["schedule"])
        stale = stale + 1 if loss > best - self.tol else 0
        if stale >= self.n_iter_no_change and self.learning_rate / divisor > SMALLEST_RATE:
            divisor, stale = divisor * SLOWER, 0
        state["schedule"][:] = divisor, min(best, loss), stale

    @final
    def may_slow_down(self, state: dict[str, Array]) -> bool:
        """Whether the schedule is ``"adaptive"`` and the rate is not yet as small as it gets."""
        return self.schedule == "adaptive" and self.learning_rate / float(state["schedule"][0]) > SMALLEST_RATE

    def result(self, w: Array, state: dict[str, Array], t: int) -> Array:
        """Return the parameters to give out after update `t`: `w` itself, unless the rule averages."""
        return w

    @final
    def _update_chunks(self, w: Array, g: Array, slots: tuple[Array, ...], t: int, rate: float) -> None:
        size = len(g)
        if size <= PART or type(g) is not np.ndarray:
            self.update(w, g, slots, t, rate)
            return
        for start in range(0, size, PART):
            part = slice(start, start + PART)
            self.update(w[part], g[part], tuple([slot[part] for slot in slots]), t, rate)


def clip(g: Array, max_norm: float) -> float:
    """Scale `g` in place so that its Euclidean norm is at most `max_norm`; return its norm before.

    Parameters
    ----------
    g : array of shape (P,)
        The whole gradient; left alone if its norm is not finite.
    max_norm : float
        Greater than 0.

    Returns
    -------
    float
        The norm before: NaN or infinite if `g` holds such values.

    Raises
    ------
    ValueError
        `max_norm` is not greater than 0.

    References
    ----------
    Pascanu, Mikolov and Bengio: On the difficulty of training recurrent neural networks, 2013.

    Examples
    --------
    >>> import numpy as np
    >>> g = np.array([3.0, 4.0])
    >>> clip(g, 1.0), g.round(1).tolist()
    (5.0, [0.6, 0.8])
    """
    if not max_norm > 0:
        raise ValueError(f"max_norm={max_norm!r}: must be greater than 0; use None as clip_norm for no clipping.")
    norm = math.sqrt(float(g @ g))
    if math.isinf(norm):  # the squares may overflow where the values do not
        largest = float(abs(g).max())
        if math.isfinite(largest):
            scaled = g / largest
            norm = largest * math.sqrt(float(scaled @ scaled))
    if norm > max_norm and math.isfinite(norm):
        g *= max_norm / norm
    return norm


def set_unused(optimizer: Optimizer, **fields: float | str | None) -> None:
    """Set what this optimizer has no setting for: a constant schedule, no clipping, and what else is given."""
    unused: dict[str, float | str | None] = {"schedule": "constant", "power_t": 0.5, "alpha": 1e-4, "clip_norm": None}
    for name, value in (unused | {"n_iter_no_change": 1} | fields).items():
        object.__setattr__(optimizer, name, value)


def check_settings(optimizer: Optimizer) -> None:
    """Check the settings that all optimizers share, and make them plain numbers, so that the repr recreates them."""
    check_option("schedule", optimizer.schedule, SCHEDULES)
    for name in ("learning_rate", "alpha"):
        set_number(optimizer, name, 0, open_low=True)
    set_number(optimizer, "power_t")
    set_number(optimizer, "tol", 0)
    if optimizer.clip_norm is not None:
        set_number(optimizer, "clip_norm", 0, open_low=True)
    count = check_integer("n_iter_no_change", optimizer.n_iter_no_change, 1)
    object.__setattr__(optimizer, "n_iter_no_change", count)


def set_number(
    optimizer: Optimizer, name: str, low: float = -math.inf, below: float = math.inf, *, open_low: bool = False
) -> None:
    """Make a setting a float, or raise ValueError unless it is finite and lies in ``[low, below)``."""
    value = check_number(name, getattr(optimizer, name), low, below, open_low=open_low, open_high=True)
    object.__setattr__(optimizer, name, value)
