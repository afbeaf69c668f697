"""Rank faults: slow and paused workers, exceptions, kills. Each goes wrong in the rank's own process."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from scaleml.checks import check_flag, check_number
from scaleml.faults.base import Fault, Interval, Moment
from scaleml.faults.network import CorruptFrame, DropLink


@dataclass(frozen=True, repr=False)
class Slow(Interval):
    """A slow worker: its gradients, a server's updates, take ``factor`` times as long from step ``step`` until before ``until``.

    ::

        t <- seconds that the gradient (of a server, the update) took;  sleep (factor - 1) t

    In the ledger it is computing time of that rank (of a server ``apply``), and waiting time of those who need it.

    Parameters
    ----------
    rank : int
        Which rank.
    factor : float
        How many times as long, 1 or more; 1 lifts an earlier ``Slow``.
    step, until : int, int or None
        The rank's steps; None: to the end.

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
        super().__post_init__()
        check_number("factor", self.factor, 1, rule="1 or more and finite, how many times as long a gradient takes")


@dataclass(frozen=True, repr=False)
class Pause(Moment):
    """A rank that does nothing for a while, as it begins a step: a swapping host, a preempted machine.

    It goes on afterwards; nobody is told, and its process lives. In the ledger it is ``other`` time of that rank.

    Parameters
    ----------
    rank, step : int
        Which rank, and before which of its steps.
    seconds : float
        For how long.

    Examples
    --------
    >>> from scaleml import faults
    >>> faults.Pause(rank=0, step=10, seconds=0.5)
    Pause(rank=0, step=10, seconds=0.5)
    """

    rank: int
    step: int
    seconds: float

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("seconds", self.seconds, 0, rule="a finite number of seconds, 0 or more; Crash or Kill end a rank")


@dataclass(frozen=True, repr=False)
class Crash(Moment):
    """An exception in the rank's own code, at step ``step``.

    Examples
    --------
    >>> from scaleml import faults
    >>> faults.Crash(rank=1, step=5).active(5)
    True
    """

    rank: int
    step: int


@dataclass(frozen=True, repr=False)
class Kill(Moment):
    """SIGKILL of the rank's own process, at step ``step``: what an out-of-memory killer or a lost node does.

    Parameters
    ----------
    rank, step : int
        Which rank, and before which of its steps.
    allow_kill : bool
        Whether a worker may die that scaleml did not start. Never the client's own process.

    Examples
    --------
    >>> from scaleml import faults
    >>> faults.Kill(rank=1, step=5).allow_kill
    False
    """

    rank: int
    step: int
    allow_kill: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_flag("allow_kill", self.allow_kill)


class InjectedCrash(RuntimeError):
    """What a ``Crash`` raises in its rank."""


def left_after_loss(faults: Sequence[Fault], lost: Collection[int], reached: int) -> tuple[Fault, ...]:
    """Return the faults of ranks that go on, without what has ended those before: that strikes once.

    Parameters
    ----------
    faults : sequence of Fault
    lost : collection of int
        The ranks that were lost: each without its first kill, if it has one.
    reached : int
        The step that ranks had come to: links that were cut by then, or had altered a frame, are whole again.

    Examples
    --------
    >>> left_after_loss([Kill(1, 9), Slow(1, 2), Kill(1, 4), Kill(0, 3)], lost=[1], reached=4)
    (Kill(rank=1, step=9), Slow(rank=1, factor=2), Kill(rank=0, step=3))
    """
    struck: list[Fault] = [
        fault for fault in faults if isinstance(fault, DropLink | CorruptFrame) and fault.step <= reached
    ]
    for rank in lost:
        kills = [fault for fault in faults if isinstance(fault, Kill) and fault.rank == rank]
        struck += sorted(kills, key=lambda fault: fault.step)[:1]
    return tuple(fault for fault in faults if not any(fault is one for one in struck))


def renumbered(faults: Sequence[Fault], numbers: Mapping[int, int]) -> tuple[Fault, ...]:
    """Return the faults of ranks that go on, under their new numbers; what concerned others is over.

    Parameters
    ----------
    faults : sequence of Fault
    numbers : mapping
        New numbers by old ones.

    Examples
    --------
    >>> renumbered([Kill(1, 9), Slow(2, 4)], {0: 0, 2: 1})
    (Slow(rank=1, factor=4),)
    """
    found = []
    for fault in faults:
        to = getattr(fault, "to", None)
        if fault.rank in numbers and (to is None or to in numbers):
            changed = {"rank": numbers[fault.rank]} | ({} if to is None else {"to": numbers[to]})
            found.append(replace(fault, **changed))  # type: ignore[type-var]
    return tuple(found)
