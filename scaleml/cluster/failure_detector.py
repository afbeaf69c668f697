"""Failure detector: which ranks have not been heard for too long, and whether that is their own doing. Pure.

Heartbeats with a deadline, as of [Chandra and Toueg, 1996](https://doi.org/10.1145/226643.226647), and then a second opinion: whoever
does not beat is suspected, and found stalled only where Dask does not hear of its worker either, and its process is stopped or nobody can
say what it is doing. A process that computes without letting its event loop run is silent as well: as long as others on its
host see it alive, it is not stalled.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass
from typing import Final, final

from scaleml.cluster.events import Examined, Stalled
from scaleml.cluster.process_state import ProcessState

LOOK: Final = 1.0
"""Seconds between two looks at those who are suspected."""
_STEP: Final = 0.5
"""Seconds that may count between two ticks: a client that was asleep for longer has heard nobody, and blames nobody."""
_SURE: Final = 10.0
"""Seconds after which Dask would have heard of a worker again, whatever the size of the cluster."""


@dataclass(frozen=True)
class Silence:
    """A rank that is stalled.

    Parameters
    ----------
    rank : int
        Which.
    seconds : float
        Since it was heard last.
    process : {"stopped", "gone", "unknown"}
        What others on its host say of its process.
    waiting : Stalled or None
        A rank that waits for it, as that has told.
    """

    rank: int
    seconds: float
    process: ProcessState
    waiting: Stalled | None = None


@final
class FailureDetector:
    """Measures the silence of ranks, by the time in which the client was awake.

    Parameters
    ----------
    ranks : int
        How many there are.
    timeout : float
        Seconds of silence after which a rank is suspected.
    """

    def __init__(self, ranks: int, timeout: float) -> None:
        self._timeout = timeout
        self._ranks = range(ranks)
        self._awake = 0.0
        self._ticked: float | None = None
        self._heard = dict.fromkeys(self._ranks, 0.0)
        self._looked = -LOOK
        self._before: dict[int, tuple[float | None, float]] = {}
        self._waiting: dict[int, Stalled] = {}

    def hear(self, ranks: Iterable[int]) -> None:
        """Note that ranks live."""
        for rank in ranks:
            self._heard[rank] = self._awake
            self._before.pop(rank, None)
            self._waiting.pop(rank, None)

    def wait(self, stall: Stalled) -> None:
        """Note who waits for whom; it changes nothing but the words."""
        for rank in self._ranks if stall.peer < 0 else [stall.peer]:
            if rank != stall.rank:
                self._waiting[rank] = stall

    def tick(self, now: float) -> None:
        """Have time pass, on whatever clock."""
        self._awake += min(_STEP, max(0.0, now - (now if self._ticked is None else self._ticked)))
        self._ticked = now

    def silence(self, rank: int) -> float:
        """Return for how many seconds a rank has not been heard."""
        return self._awake - self._heard[rank]

    def suspects(self, ended: Container[int]) -> tuple[int, ...]:
        """Return whom to look at now, of those who have not ``ended``: nobody, between two looks."""
        if self._awake - self._looked < LOOK:
            return ()
        found = tuple(rank for rank in self._ranks if rank not in ended and self.silence(rank) > self._timeout)
        if found:
            self._looked = self._awake
        return found

    def judge(self, seen: Examined) -> Silence | None:
        """Return that a rank is stalled, by a second look at it that shows no sign of life either; None otherwise."""
        rank, seconds = seen.rank, self.silence(seen.rank)
        if seconds <= self._timeout:  # it was heard meanwhile
            return None
        heartbeat, since = self._before.setdefault(rank, (seen.heartbeat, self._awake))
        if seen.process == "alive" or heartbeat != seen.heartbeat:
            self.hear([rank])
            return None
        known = seen.process != "unknown" or heartbeat is None
        if self._awake - since < (LOOK / 2 if known else min(self._timeout, _SURE)):
            return None
        return Silence(rank, seconds, seen.process, self._waiting.get(rank))
