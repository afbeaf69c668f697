"""What all faults have in common: a rank, and when it goes wrong there."""

from __future__ import annotations

from abc import ABC, abstractmethod
from numbers import Real
from typing import Any, ClassVar


class Fault(ABC):
    """Something that goes wrong at a rank, in one step or from a step on.

    Attributes
    ----------
    once : bool
        Whether it happens in one step; otherwise it lasts.
    """

    rank: int
    step: int
    once: ClassVar[bool] = False

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

    def active(self, step: int) -> bool:
        """Whether the fault is at work in this step."""
        return self.step <= step and (self.until is None or step < self.until)


def check_whole(**values: Any) -> None:
    """Raise for what is no rank, step or the like; None passes where ``until`` or ``to`` may be None."""
    for name, value in values.items():
        if value is None and name in ("until", "to"):
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise ValueError(f"{name}={value!r}: must be an integer, 0 or more")


def check_link(rank: int, to: int | None) -> None:
    """Raise for a link of a rank to itself."""
    if rank == to:
        raise ValueError(f"to={to!r}: must be another rank than rank={rank!r}, whose link it is")


def check_real(name: str, value: Any, least: float, rule: str, *, above: bool = False) -> None:
    """Raise for what is no number of at least (or, with ``above``, more than) ``least``."""
    real = isinstance(value, Real) and not isinstance(value, bool)
    if not (real and (value > least if above else value >= least)):
        raise ValueError(f"{name}={value!r}: must be {rule}")
