"""Fault injection: a rank's faults, brought about for real at the steps they are meant for."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import inf, isfinite
from typing import Final, Protocol
from weakref import WeakMethod

from scaleml.comm import TokenBucket
from scaleml.comm.communicator import Communicator, RateLimiter
from scaleml.faults import Bandwidth, CorruptFrame, Crash, DropLink, Fault, InjectedCrash, Kill, Latency, Pause, Slow
from scaleml.runtime.serialization import describe, is_ours
from scaleml.runtime.train_state import TrainState

_LOOK: Final = 0.05
"""Seconds between two looks of a paused rank whether it is still wanted."""
_LAST_WORDS: Final = 0.05
"""Seconds for the news of a kill to leave the process."""

Mark = WeakMethod[Callable[[Fault], None]]
"""Told what begins."""

_log = logging.getLogger(__name__)


class Working(Protocol):
    """What a slow rank does slowly.

    Attributes
    ----------
    slowness : float
        How many times as long it takes as it could.
    """

    slowness: float


class FaultInjector:
    """The faults of one rank.

    Parameters
    ----------
    state : TrainState
        Whose ``faults`` are those of this rank that are not over.
    world : Communicator
        All ranks.
    work : Working
        What a slow rank does slowly: gradients, on a server updates.
    mark : weak method
        Told what begins, as it begins; weak, for its object holds this one.
    since : int
        The first step here: what began before has been told.
    """

    def __init__(self, state: TrainState, world: Communicator, work: Working, mark: Mark, since: int = 0) -> None:
        self._state = state
        self._world = world
        self._work = work
        self._mark = mark
        self._unmarked = [fault for fault in state.faults if fault.step >= since]
        self._limits: dict[Fault, RateLimiter] = {}
        self.next: float = min((fault.step for fault in state.faults), default=inf)
        """The step with which something begins or ends."""

    def add(self, fault: Fault, step: int) -> None:
        """Take one fault more, before step ``step``: what should have happened by now happens then."""
        if fault.rank != self._world.rank:
            return
        fault = _postponed(fault, step)
        self._state.faults += (fault,)
        self._unmarked.append(fault)
        self._tell(step)
        self.next = min(self.next, max(step, fault.step))

    def left(self, step: int, following: int) -> tuple[Fault, ...]:
        """Return the faults that are not over before step ``step``, which is to be called ``following``."""
        return still_to_come(self._state.faults, step, following)

    def begin(self, step: int) -> None:
        """Bring about what begins or ends with step ``step``."""
        self._world.step = step
        self._tell(step)
        faults = self._state.faults = tuple(fault for fault in self._state.faults if _end(fault) > step)
        now = [fault for fault in faults if fault.active(step)]
        self._work.slowness = next((fault.factor for fault in reversed(now) if isinstance(fault, Slow)), 1.0)
        self._shape_links(now)
        edges = [edge for fault in faults for edge in (fault.step, _end(fault))]
        self.next = min((edge for edge in edges if edge > step), default=inf)
        for fault in now:
            if fault.once:
                self._strike(fault)

    def _tell(self, step: int) -> None:
        for fault in [fault for fault in self._unmarked if fault.active(step)]:
            self._unmarked.remove(fault)
            mark = self._mark()
            assert mark is not None
            mark(fault)
            _log.info("rank %d: %r begins at step %d", self._world.rank, fault, step)

    def _shape_links(self, now: Sequence[Fault]) -> None:
        bad = [fault for fault in now if isinstance(fault, Latency | Bandwidth)]
        world = self._world
        if not bad and not world.is_emulated:
            return
        for peer in range(world.size):
            if peer != world.rank:
                here = [fault for fault in reversed(bad) if fault.to in (None, peer)]
                latency = next((fault.seconds for fault in here if isinstance(fault, Latency)), 0.0)
                limit = next((fault for fault in here if isinstance(fault, Bandwidth)), None)
                world.emulation().shape(peer, latency, None if limit is None else self._limiter(limit))

    def _limiter(self, limit: Bandwidth) -> RateLimiter | None:
        if not isfinite(limit.bytes_per_second):
            return None
        return self._limits.setdefault(limit, TokenBucket(limit.bytes_per_second))  # one for all links that share it

    def _strike(self, fault: Fault) -> None:
        if isinstance(fault, Pause):
            pause(self._world, fault.seconds)
        elif isinstance(fault, Crash):
            raise InjectedCrash(f"injected by {fault!r}")
        elif isinstance(fault, CorruptFrame):
            self._world.emulation().corrupt(fault.to, fault.part)
        elif isinstance(fault, DropLink):
            self._world.emulation().drop(fault.to)
        elif isinstance(fault, Kill):
            self._world.clock.sleep(_LAST_WORDS)
            os.kill(os.getpid(), signal.SIGKILL)


def still_to_come(faults: Sequence[Fault], step: int, following: int) -> tuple[Fault, ...]:
    """Return the faults that are not over before step ``step``, which is to be called ``following``."""
    return tuple(_postponed(fault, following) for fault in faults if _end(fault) > step)


def pause(world: Communicator, seconds: float) -> None:
    """Sleep for so many seconds, or until the rank is aborted."""
    clock = world.clock
    until = clock.now() + seconds
    while (left := until - clock.now()) > 0:
        world.check()
        clock.sleep(min(left, _LOOK))


def facts_of(fault: Fault) -> dict[str, object]:
    """Return what the history says of a fault that begins: in words, and as what it is."""
    return {"text": repr(fault), "what": "fault", "fault": describe(fault) if is_ours(fault) else None}


def _postponed(fault: Fault, step: int) -> Fault:
    """Have what happens once happen at ``step``, if its own step has passed."""
    if fault.once and fault.step < step:
        return replace(fault, step=step)  # type: ignore[type-var]  # every fault is a dataclass
    return fault


def _end(fault: Fault) -> float:
    """Return the step before which a fault ends."""
    if fault.once:
        return fault.step + 1
    until = getattr(fault, "until", None)
    return inf if until is None else float(until)
