"""Faults: what all have in common, a rank and the steps in which it goes wrong there."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from scaleml.checks import check_integer
from scaleml.representation import call_of


class Fault(ABC):
    """Something that goes wrong at a rank, in one step or from a step on.

    Every fault is a frozen dataclass, and raises ValueError for a value that breaks its rule.

    Attributes
    ----------
    rank : int
        Where.
    step : int
        A step of that rank: the one in which it happens, or the first.
    once : bool
        Whether it happens in one step; otherwise it lasts.
    """

    rank: int
    step: int
    once: ClassVar[bool] = False

    def __post_init__(self) -> None:
        self._make_integers("rank", "step")

    def __repr__(self) -> str:
        """Return the call that makes it: the first setting, and those that are not at their default."""
        return call_of(self)

    def _make_integers(self, *names: str) -> None:
        for name in names:
            object.__setattr__(self, name, check_integer(name, getattr(self, name)))

    @abstractmethod
    def active(self, step: int) -> bool:
        """Whether the fault is at work in step ``step`` of its rank."""


class Moment(Fault):
    """A fault that happens once, as its rank begins step ``step``."""

    once: ClassVar[bool] = True

    def active(self, step: int) -> bool:
        """Whether this is the step."""
        return step == self.step


class Interval(Fault):
    """A fault that lasts from step ``step`` until before ``until``; None: to the end."""

    until: int | None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.until is not None:
            self._make_integers("until")

    def active(self, step: int) -> bool:
        """Whether the fault is at work in this step."""
        return self.step <= step and (self.until is None or step < self.until)
