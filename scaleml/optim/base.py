"""Optimizer base: frozen settings, learning-rate schedules, and an update of part of the parameters."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple, Self, final

import numpy as np

from scaleml.arrays import PART, Array, namespace
from scaleml.optim.groups import Group
from scaleml.optim.place import follow, fresh, place_of
from scaleml.optim.schedules import Schedule
from scaleml.representation import call_of

__all__ = ["Optimizer", "Segment"]

# "adaptive" stops dividing here, as scikit-learn's SGD does.
SMALLEST_RATE = 1e-6
SLOWER = 5

Where = slice | Array | None


class Segment(NamedTuple):
    """A part of the parameters with settings of its own; see `segments_of`.

    Parameters
    ----------
    start, stop : int
        Where in the vector.
    factor : float
        Of the learning rate.
    rule : Optimizer
        What updates it.
    """

    start: int
    stop: int
    factor: float
    rule: Optimizer


class Optimizer(ABC):
    """An update rule with its settings; its state lies apart, in a dict of arrays that are as long as the parameters.

    The arithmetic is element by element, so that updating the parts of the vector one after the other, in any order
    and by whichever rank, gives the bits of updating it whole.

    Parameters
    ----------
    learning_rate : float
        Greater than 0.
    schedule : {"constant", "optimal", "invscaling", "adaptive"} or Schedule
        The learning rate of update t = 1, 2, ..., by scikit-learn's names and formulas: `learning_rate`;
        ``1 / (alpha * (t0 + t - 1))`` with Bottou's ``t0 = alpha ** -0.75``; ``learning_rate / t ** power_t``;
        `learning_rate`, divided by 5 whenever the loss of `n_iter_no_change` epochs has not improved by `tol`. An
        update is one batch here and one row there. Or one that goes with the length of the run, such as
        ``Warmup(epochs=5, then=CosineAnnealing())``: see `scaleml.optim.schedules`.
    power_t, alpha : float
        Of the schedules; `alpha` is the model's, and penalises nothing here.
    clip_norm : float or None
        Largest Euclidean norm of the whole gradient. `apply` does not see to it, for a part of the gradient does not
        know the norm: who holds the whole one calls `clip` first.
    tol : float
    n_iter_no_change : int
    weight_decay : float
        At least 0: what is added to the gradient, ``g += weight_decay * w``, after it was clipped; of `AdamW` see there. The model's
        own penalty (``alpha``), which is part of the objective, spares biases; this one does not, unless `no_decay` says so.
    groups : sequence of Group
        Learning rates and weight decays for parameters of some names.
    no_decay : str or tuple of str
        Patterns of the names of parameters without weight decay, such as ``("*bias", "*norm*")``; or ``"1d"``, see `Group`.

    Attributes
    ----------
    takes_all_rows : bool
        Whether a step is of all rows, never of a batch, and of the loss as much as of its gradient; see `LBFGS`.
    """

    takes_all_rows: ClassVar[bool] = False

    learning_rate: float
    schedule: str | Schedule
    power_t: float
    alpha: float
    clip_norm: float | None
    tol: float
    n_iter_no_change: int
    weight_decay: float = 0.0
    groups: tuple[Group, ...] = ()
    no_decay: tuple[str, ...] = ()

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
            Zeros of shape (P,) by name; for some schedules also ``"schedule"``, always in NumPy, and float64: for ``"adaptive"`` (3,)
            of the rate's divisor, the best loss, and the number of epochs without improvement; for a `Schedule` (5,) of its place.
        """
        xp = namespace(like)
        state: dict[str, Array] = {name: xp.zeros(size, dtype) for name in self.slots()}
        if self.schedule == "adaptive":
            state["schedule"] = np.array([1.0, math.inf, 0.0])
        elif isinstance(self.schedule, Schedule):
            state["schedule"] = fresh()
        return state

    @final
    def rate(self, t: int, state: dict[str, Array], scale: float = 1.0) -> float:
        """Return the learning rate of update `t` (the first is 1), times `scale`."""
        if self.schedule == "constant":
            return self.learning_rate * scale
        if self.schedule == "invscaling":
            return scale * self.learning_rate / t**self.power_t
        if isinstance(self.schedule, Schedule):
            return scale * self.learning_rate * self.schedule.factor(place_of(state["schedule"], t))
        if self.schedule == "optimal":
            return scale / (self.alpha * (self.alpha**-0.75 + t - 1))
        return scale * self.learning_rate / float(state["schedule"][0])

    @final
    def follow_run(
        self, state: dict[str, Array], *, updates: int, done: float | None, pace: float, epochs: float | None = None
    ) -> None:
        """Tell a `Schedule` where the run is: when it begins, and whenever its pace changes. Others take no notice.

        Parameters
        ----------
        state : dict of arrays
            What the schedule has to know is kept here.
        updates : int
            Updates so far.
        done : float or None
            Epochs of the run so far; None for what follows from the updates.
        pace : float
            Updates an epoch from now on.
        epochs : float, optional
            Of the whole run; as before if not given.
        """
        if isinstance(self.schedule, Schedule):
            follow(state["schedule"], updates, done, pace, epochs)

    def with_rate(self, learning_rate: float) -> Self:
        """Return the same optimizer with another learning rate, and its groups' in the same ratio; its state goes on."""
        groups = tuple(group.times(learning_rate / self.learning_rate) for group in self.groups)
        more = {"groups": groups} if groups else {}
        return replace(self, learning_rate=learning_rate, **more)  # type: ignore[type-var]  # every subclass is a dataclass

    def with_decay(self, weight_decay: float) -> Self:
        """Return the same optimizer with another weight decay, for all parameters."""
        return replace(self, weight_decay=weight_decay, groups=(), no_decay=())  # type: ignore[type-var]

    @final
    def apply(
        self,
        w: Array,
        g: Array,
        state: dict[str, Array],
        t: int,
        where: Where = None,
        rate: float | None = None,
        segments: Sequence[Segment] = (),
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
        segments : sequence of Segment
            Those of `segments_of` for ``w``, where the optimizer has groups.
        """
        # A NumPy scalar would lift the arithmetic to float64.
        rate = self.rate(t, state) if rate is None else float(rate)
        slots = tuple(map(state.__getitem__, self.slots()))
        if segments:
            self._update_segments(w, g, slots, t, rate, segments, where)
        elif where is None and len(g) <= PART:
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
    def _update_segments(
        self,
        w: Array,
        g: Array,
        slots: tuple[Array, ...],
        t: int,
        rate: float,
        segments: Sequence[Segment],
        where: Where,
    ) -> None:
        """Update each segment by its own rule; ``g`` begins where the slice `where` does."""
        if where is not None and not (isinstance(where, slice) and where.step in (None, 1)):
            raise ValueError("parameter groups are runs of neighbours: update the whole vector, or a slice of it")
        first = 0 if where is None else where.indices(len(w))[0]
        for segment in segments:
            start, stop = max(segment.start, first), min(segment.stop, first + len(g))
            if start < stop:
                own = slice(start, stop)
                parts = tuple([slot[own] for slot in slots])
                segment.rule._update_chunks(w[own], g[start - first : stop - first], parts, t, rate * segment.factor)

    @final
    def _update_chunks(self, w: Array, g: Array, slots: tuple[Array, ...], t: int, rate: float) -> None:
        size = len(g)
        if size <= PART or type(g) is not np.ndarray:
            self.update(w, g, slots, t, rate)
            return
        for start in range(0, size, PART):
            part = slice(start, start + PART)
            self.update(w[part], g[part], tuple([slot[part] for slot in slots]), t, rate)
