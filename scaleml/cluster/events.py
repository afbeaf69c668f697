"""What happens to a run, and what its supervisor answers: plain facts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Arrived:
    """A rank's task runs on its worker; it still has to meet the others."""

    rank: int


@dataclass(frozen=True)
class Entered:
    """A rank stands in its loop."""

    rank: int


@dataclass(frozen=True)
class Left:
    """A rank's task is over."""

    rank: int
    status: str
    step: int


@dataclass(frozen=True)
class RankFailed:
    """A rank ended with an error; ``cause`` is ``own``, ``peer`` or ``told``."""

    rank: int
    error: str
    cause: str
    step: int
    peer: int = -1


@dataclass(frozen=True)
class Stalled:
    """A rank waits for another one for a long time."""

    rank: int
    peer: int
    step: int
    waiting_for: str
    seconds: float


@dataclass(frozen=True)
class Silent:
    """The worker of a rank that others wait for has sent no heartbeat to Dask for a long time."""

    rank: int
    stall: Stalled
    seconds: float


@dataclass(frozen=True)
class WorkerLost:
    """Dask removed a worker, when the ranks had last told of so many steps."""

    address: str
    step: int = 0


@dataclass(frozen=True)
class ClientLost:
    """The Dask client closed or lost its scheduler."""

    reason: str


@dataclass(frozen=True)
class Applied:
    """A command took effect on a rank."""

    rank: int
    number: int
    verb: str
    step: int


@dataclass(frozen=True)
class GivenUp:
    """The run was told to stop before all ranks had entered."""


@dataclass(frozen=True)
class Tick:
    """Time has passed."""


Event = GivenUp | Arrived | Entered | Left | RankFailed | Stalled | Silent | WorkerLost | ClientLost | Applied | Tick


@dataclass(frozen=True)
class Abort:
    """End all ranks that still live."""

    reason: str


@dataclass(frozen=True)
class CheckHeartbeat:
    """Look whether the worker of ``stall.peer`` is alive, or those of all other ranks if it is -1."""

    stall: Stalled


@dataclass(frozen=True)
class Conclude:
    """The run is over."""

    state: str
    error: str | None = None


@dataclass(frozen=True)
class Succeed:
    """All ranks have handed over: others go on in their place."""


Instruction = Abort | CheckHeartbeat | Conclude | Succeed


def event_of(message: dict[str, Any]) -> Event | None:
    """Return what a rank's message is about, if it is something that happened to the run."""
    kind, rank = message["kind"], message["rank"]
    if kind == "arrived":
        return Arrived(rank)
    if kind == "entered":
        return Entered(rank)
    if kind == "left":
        return Left(rank, message["status"], message["step"])
    if kind == "failed":
        return RankFailed(rank, message["error"], message["cause"], message["step"], message["peer"])
    if kind == "stalled":
        return Stalled(rank, message["peer"], message["step"], message["waiting_for"], message["seconds"])
    if kind == "applied":
        return Applied(rank, message["number"], message["verb"], message["step"])
    return None
