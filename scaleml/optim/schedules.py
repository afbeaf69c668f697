"""Learning-rate schedules by the place in a run: warm-up, cosine annealing, linear decay, steps; composed, and as frozen settings.

A schedule gives a *factor* of the optimizer's learning rate, so that a new learning rate in mid-run acts on the whole curve. Its place is
kept in the optimizer's state, under ``"schedule"``, in epochs of the run: where batch size or strategy change in mid-run, and with them
how many updates an epoch has, the curve goes on where it is, and still ends with the run.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Final, final

from scaleml.checks import check_flag, check_integer, check_number
from scaleml.optim.place import Place
from scaleml.representation import call_of

__all__ = ["CosineAnnealing", "LinearDecay", "Schedule", "StepDecay", "Warmup"]

_ROUNDING: Final = 1e-9


class Schedule(ABC):
    """A learning rate that goes with the place in a run. Subclasses are frozen dataclasses, and find their place in what they are given.

    Lengths are in epochs or in updates; those in updates are converted once, by the updates that an epoch has when the run begins. Where
    neither is given, the length is the run's own (or what is left of it).

    A run begins its schedule anew, also one that starts warm. Where ranks have a pace of their own (`Hogwild`, `Gossip`), a rank's place
    goes by its own updates.
    """

    def __repr__(self) -> str:
        """Return the call that makes it: those settings that are not at their default."""
        return call_of(self)

    @abstractmethod
    def factor(self, place: Place) -> float:
        """Return by what the learning rate is multiplied for the update at a place."""


@final
@dataclass(frozen=True, repr=False)
class CosineAnnealing(Schedule):
    """Cosine annealing, with warm restarts where wanted (SGDR).

    ``factor = minimum + (1 - minimum) * (1 + cos(pi * k / T)) / 2`` after k of T updates; `minimum` from then on. With `restarts` it
    begins again at 1, each time for `growth` times as long. PyTorch's ``CosineAnnealingLR`` up to its ``T_max``, and
    ``CosineAnnealingWarmRestarts``, where ``eta_min`` is ``minimum`` times the learning rate.

    Parameters
    ----------
    epochs : float, optional
        T in epochs.
    updates : int, optional
        T in updates. Default for both: what is left of the run.
    minimum : float
        Where it ends, as a part of the learning rate: 0 to 1.
    restarts : bool
        Whether it begins again after T, which has to be given then.
    growth : float
        How many times as long each cycle is as the one before, at least 1.

    Raises
    ------
    ValueError
        A value breaks its rule.

    References
    ----------
    Loshchilov and Hutter: SGDR: stochastic gradient descent with warm restarts, 2017.

    Examples
    --------
    >>> from scaleml.optim import SGD
    >>> sgd = SGD(0.5, schedule=CosineAnnealing())
    >>> state = sgd.init(2, "float32")
    >>> sgd.follow_run(state, updates=0, done=0.0, pace=2, epochs=2)
    >>> [round(sgd.rate(t, state), 3) for t in (1, 2, 3, 4, 5)]
    [0.5, 0.427, 0.25, 0.073, 0.0]
    """

    epochs: float | None = None
    updates: int | None = None
    minimum: float = 0.0
    restarts: bool = False
    growth: float = 1.0

    def __post_init__(self) -> None:
        _check_length(self)
        _set_number(self, "minimum", 0, 1)
        _set_number(self, "growth", 1)
        check_flag("restarts", self.restarts)
        if self.restarts and self.epochs is None and self.updates is None:
            raise ValueError(
                "restarts=True without a length: what is as long as the run has no restart; give epochs=10, say"
            )

    def factor(self, place: Place) -> float:
        """Return its factor; see `Schedule.factor`."""
        length = _length(self.epochs, self.updates, place)
        share = place.done / length if length > 0 else 1.0
        if self.restarts:
            share = self._in_cycle(share)
        return self.minimum + (1 - self.minimum) * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))

    def _in_cycle(self, share: float) -> float:
        """Return which share of its cycle is over, given how many first cycles' lengths are."""
        late = share + _ROUNDING  # a restart must not be an update late
        if self.growth == 1:
            return max(0.0, share - math.floor(late))
        cycle = math.floor(math.log(1 + late * (self.growth - 1), self.growth))
        begun = (self.growth**cycle - 1) / (self.growth - 1)
        return max(0.0, share - begun) / self.growth**cycle


@final
@dataclass(frozen=True, repr=False)
class LinearDecay(Schedule):
    """Linear decay: ``factor = 1 - (1 - minimum) * k / T`` after k of T updates; `minimum` from then on.

    Parameters
    ----------
    epochs : float, optional
        T in epochs.
    updates : int, optional
        T in updates. Default for both: what is left of the run.
    minimum : float
        Where it ends, as a part of the learning rate: 0 to 1.

    Raises
    ------
    ValueError
        A value breaks its rule.

    References
    ----------
    Devlin et al.: BERT, 2019, appendix A.2, after a warm-up.

    Examples
    --------
    >>> from scaleml.optim.place import Place
    >>> LinearDecay().factor(Place(done=3.0, update=0.1, pace=10, epochs=4))
    0.25
    """

    epochs: float | None = None
    updates: int | None = None
    minimum: float = 0.0

    def __post_init__(self) -> None:
        _check_length(self)
        _set_number(self, "minimum", 0, 1)

    def factor(self, place: Place) -> float:
        """Return its factor; see `Schedule.factor`."""
        length = _length(self.epochs, self.updates, place)
        share = min(1.0, place.done / length) if length > 0 else 1.0
        return 1 - (1 - self.minimum) * share


@final
@dataclass(frozen=True, repr=False)
class StepDecay(Schedule):
    """Steps: the rate times `decay` after each of some epochs, as PyTorch's ``MultiStepLR`` and the recipes of residual networks have it.

    Parameters
    ----------
    epochs : tuple of int
        After which epochs; of the run, or behind a warm-up of what follows it.
    decay : float
        Greater than 0.

    Raises
    ------
    ValueError
        A value breaks its rule.

    References
    ----------
    He, Zhang, Ren and Sun: Deep residual learning for image recognition, 2016.

    Examples
    --------
    >>> from scaleml.optim.place import Place
    >>> [StepDecay((30, 60), 0.1).factor(Place(done, 0.1, 10, 90)) for done in (29.9, 30.0)]
    [1.0, 0.1]
    """

    epochs: tuple[int, ...] = (30, 60, 80)
    decay: float = 0.1

    def __post_init__(self) -> None:
        given: object = self.epochs
        if not isinstance(given, list | tuple):
            raise ValueError(f"epochs={given!r}: must be a tuple of epochs such as (30, 60, 80)")
        object.__setattr__(self, "epochs", tuple(check_integer("epochs", epoch, 1) for epoch in given))
        _set_number(self, "decay", 0, open_low=True)

    def factor(self, place: Place) -> float:
        """Return its factor; see `Schedule.factor`."""
        return float(self.decay ** sum(place.done >= epoch - _ROUNDING for epoch in self.epochs))


@final
@dataclass(frozen=True, repr=False)
class Warmup(Schedule):
    """Linear warm-up, and another schedule after it.

    ``factor = start + (1 - start) * t / W`` for update t = 1 ... W, which takes the whole learning rate; then that of `then`, as if the
    run began there. PyTorch's ``SequentialLR`` of ``LambdaLR(lambda k: (k + 1) / W)`` and the other one with ``milestones=[W]``.

    Parameters
    ----------
    epochs : float, optional
        W in epochs: 5 are the paper's.
    updates : int, optional
        W in updates. Default for both: a tenth of the run.
    start : float
        Where it begins, as a part of the learning rate: 0 to 1.
    then : Schedule, optional
        What follows; the learning rate stays as it is if nothing does.

    Raises
    ------
    ValueError
        A value breaks its rule.

    References
    ----------
    Goyal et al.: Accurate, large minibatch SGD: training ImageNet in 1 hour, 2017, section 2.2.

    Examples
    --------
    >>> from scaleml.optim import AdamW
    >>> adam = AdamW(0.8, schedule=Warmup(updates=4, then=CosineAnnealing()))
    >>> state = adam.init(2, "float32")
    >>> adam.follow_run(state, updates=0, done=0.0, pace=4, epochs=2)
    >>> [round(adam.rate(t, state), 3) for t in range(1, 9)]
    [0.2, 0.4, 0.6, 0.8, 0.8, 0.683, 0.4, 0.117]
    """

    epochs: float | None = None
    updates: int | None = None
    start: float = 0.0
    then: Schedule | None = None

    def __post_init__(self) -> None:
        _check_length(self)
        _set_number(self, "start", 0, 1)
        if self.then is not None and not isinstance(self.then, Schedule):
            raise ValueError(f"then={self.then!r}: must be a schedule such as CosineAnnealing(), or None")

    def factor(self, place: Place) -> float:
        """Return its factor; see `Schedule.factor`."""
        own = self.epochs is None and self.updates is None
        length = place.epochs / 10 if own else _length(self.epochs, self.updates, place)
        left = length - place.done
        if left > _ROUNDING:
            return self.start + (1 - self.start) * min(1.0, (place.done + place.update) / length)
        if self.then is None:
            return 1.0
        return self.then.factor(place._replace(done=max(0.0, -left), epochs=place.epochs - length))


def _length(epochs: float | None, updates: int | None, place: Place) -> float:
    """Return a length in epochs."""
    if updates is not None:
        return updates / place.pace
    return place.epochs if epochs is None else epochs


def _check_length(schedule: Any) -> None:
    """Check the settings `epochs` and `updates`."""
    if schedule.epochs is not None and schedule.updates is not None:
        raise ValueError(
            f"epochs={schedule.epochs!r} with updates={schedule.updates!r}: one length, please; leave one out"
        )
    if schedule.epochs is not None:
        _set_number(schedule, "epochs", 0, open_low=True)
    if schedule.updates is not None:
        object.__setattr__(schedule, "updates", check_integer("updates", schedule.updates, 1))


def _set_number(schedule: Schedule, name: str, low: float, high: float = math.inf, *, open_low: bool = False) -> None:
    object.__setattr__(schedule, name, check_number(name, getattr(schedule, name), low, high, open_low=open_low))
