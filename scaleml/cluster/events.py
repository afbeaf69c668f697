"""Events of a run and instructions of its supervisor: plain facts, and what they are while Dask carries them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Final, Literal, TypedDict

from scaleml.cluster.process_state import ProcessState
from scaleml.telemetry.columns import Measures

RunState = Literal["starting", "running", "paused", "recovering", "finished", "stopped", "failed"]
OVER: Final[frozenset[RunState]] = frozenset({"finished", "stopped", "failed"})

# What a rank reports.


@dataclass(frozen=True)
class Arrived:
    """A rank's task runs on its worker; it still has to meet the others."""

    rank: int


@dataclass(frozen=True)
class Entered:
    """A rank stands in its loop; the topology is what its strategy settled on, where there was a choice."""

    rank: int
    topology: str | None = None


@dataclass(frozen=True)
class Beat:
    """A rank's process lives: told where it has told nothing else for a while."""

    rank: int


@dataclass(frozen=True)
class Left:
    """A rank's task is over; ``points`` are what it can go on from: steps, and how many commands had been applied.

    One that kept its own pace says how it stands: `Standing.facts` of the runtime.
    """

    rank: int
    status: str
    step: int
    points: Sequence[Sequence[int]] = field(default_factory=list)
    standing: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class RankFailed:
    """A rank ended with an error.

    Its ``cause`` is ``own``, ``frame`` (what came was altered on its way), ``peer`` (it lost one), ``told`` (it was aborted)
    or ``unknown`` (nothing was there to begin with: it was aborted before, or its worker is another one).
    """

    rank: int
    error: str
    cause: str
    step: int
    peer: int = -1


@dataclass(frozen=True)
class Stalled:
    """A rank waits for another one for a long time; -1: for anybody."""

    rank: int
    peer: int
    step: int
    waiting_for: str
    seconds: float


@dataclass(frozen=True)
class Applied:
    """A command took effect on a rank."""

    rank: int
    number: int
    verb: str
    step: int


@dataclass(frozen=True)
class Recorded:
    """New rows of the history, packed as float64, new evaluations and new ends of epochs."""

    rank: int
    rows: bytes
    evaluations: Sequence[Measures]
    epochs: Sequence[Measures]


@dataclass(frozen=True)
class Marked:
    """Something changed in mid-run, at a time of the training clock."""

    rank: int
    time: float
    text: str
    step: int
    what: str = "setting"
    fault: Mapping[str, object] | None = None


@dataclass(frozen=True)
class Printed:
    """Lines that a program's rank has written: (``"stdout"`` or ``"stderr"``, text without its end), in their order."""

    rank: int
    lines: Sequence[tuple[str, str]]


RankEvent = Arrived | Entered | Beat | Left | RankFailed | Stalled | Applied | Recorded | Marked | Printed
_KINDS: Final[dict[str, Callable[..., RankEvent]]] = {
    "arrived": Arrived,
    "entered": Entered,
    "beat": Beat,
    "left": Left,
    "failed": RankFailed,
    "stalled": Stalled,
    "applied": Applied,
    "rows": Recorded,
    "mark": Marked,
    "printed": Printed,
}
_NAMES: Final = {kind: name for name, kind in _KINDS.items()}


class RankMessage(TypedDict):
    """A rank's event as Dask's topics carry it: plain Python values."""

    run: str
    generation: int
    kind: str
    facts: dict[str, object]


def rank_event(kind: str, facts: Mapping[str, object]) -> RankEvent:
    """Return the event of a kind, as the runtime's ``report(kind, **facts)`` names it."""
    return _KINDS[kind](**facts)


def message_of(event: RankEvent, run: str, generation: int) -> RankMessage:
    """Return a rank's event as a message."""
    facts = {one.name: getattr(event, one.name) for one in fields(event)}
    return {"run": run, "generation": generation, "kind": _NAMES[type(event)], "facts": facts}


def event_of(message: RankMessage) -> RankEvent:
    """Return what `message_of` made a message of."""
    return rank_event(message["kind"], message["facts"])


# What happens to a run besides.


@dataclass(frozen=True)
class Examined:
    """What could be found out of the worker of a rank that is not heard.

    Parameters
    ----------
    rank : int
        Who is not heard.
    heartbeat : float or None
        When Dask's scheduler has heard of the worker, by its own clock; None where it does not know it any more.
    process : {"stopped", "alive", "gone", "unknown"}
        What others on its host say of its process.
    step : int
        How far the ranks had come, as they have told.
    """

    rank: int
    heartbeat: float | None
    process: ProcessState
    step: int = 0


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
class ClientBack:
    """The Dask client has come back to a scheduler that had forgotten the ranks, which suspended themselves."""

    reason: str


@dataclass(frozen=True)
class StartCancelled:
    """The run was told to stop before all ranks had entered."""


@dataclass(frozen=True)
class Tick:
    """Time has passed, in which these ranks were heard of."""

    heard: frozenset[int] = frozenset()


FromRank = Arrived | Entered | Left | RankFailed | Stalled | Applied
"""What a rank tells its run's driver."""
Event = (
    StartCancelled
    | Arrived
    | Entered
    | Left
    | RankFailed
    | Stalled
    | Examined
    | WorkerLost
    | ClientLost
    | ClientBack
    | Applied
    | Tick
)

# What the supervisor wants done.


@dataclass(frozen=True)
class Abort:
    """End all ranks that still live."""

    reason: str


@dataclass(frozen=True)
class Examine:
    """Look whether Dask hears of the workers of these ranks, and what their processes are doing."""

    ranks: tuple[int, ...]


@dataclass(frozen=True)
class StartNextGeneration:
    """All ranks have handed over: others go on in their place."""


@dataclass(frozen=True)
class Recover:
    """All ranks have ended that could: others go on with them, from what they have kept."""


@dataclass(frozen=True)
class Conclude:
    """The run is over."""

    state: RunState
    error: str | None = None


Instruction = Abort | Examine | StartNextGeneration | Recover | Conclude
