"""What can be broken on purpose: immutable data, applied in the rank's loop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass


class Fault(ABC):
    """Something that goes wrong at a rank, from a step on."""

    rank: int
    step: int

    @abstractmethod
    def active(self, step: int) -> bool:
        """Whether the fault is at work in step ``step`` of its rank."""


def _check(rank: int, step: int) -> None:
    for name, value in (("rank", rank), ("step", step)):
        if not isinstance(value, int) or value < 0:
            raise ValueError(f"{name}={value!r}: must be an integer, 0 or more")


@dataclass(frozen=True)
class Slow(Fault):
    """A slow worker: its computation takes ``factor`` times as long from step ``step`` until before ``until``.

    Examples
    --------
    >>> from scaleml import faults
    >>> [faults.Slow(rank=1, factor=4, step=2, until=4).active(step) for step in range(5)]
    [False, False, True, True, False]
    """

    rank: int
    factor: float
    step: int = 0
    until: int | None = None

    def __post_init__(self) -> None:
        _check(self.rank, self.step)
        if not self.factor >= 1:
            raise ValueError(f"factor={self.factor!r}: must be 1 or more, how many times as long a gradient takes")

    def active(self, step: int) -> bool:
        """Whether the rank is slow in this step."""
        return self.step <= step and (self.until is None or step < self.until)


@dataclass(frozen=True)
class Crash(Fault):
    """An exception in the rank's own code, at step ``step``."""

    rank: int
    step: int

    def __post_init__(self) -> None:
        _check(self.rank, self.step)

    def active(self, step: int) -> bool:
        """Whether this is the step."""
        return step == self.step


@dataclass(frozen=True)
class Kill(Fault):
    """SIGKILL of the rank's own process, at step ``step``: what an out-of-memory killer or a lost node does."""

    rank: int
    step: int

    def __post_init__(self) -> None:
        _check(self.rank, self.step)

    def active(self, step: int) -> bool:
        """Whether this is the step."""
        return step == self.step


class InjectedCrash(RuntimeError):
    """What a ``Crash`` raises in its rank."""
