"""Parked ranks: what suspended ranks leave in their process, for a client that lost its connection and comes back for it by name.

Dask forgets what a client had asked for as soon as its connection is gone, and drops what such a task returns. So it is kept here, too,
for `scaleml.client-timeout`, and a task of the client that is back picks it up.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from distributed import Worker, get_worker

from scaleml.cluster.endpoint import RankKey, abort_ranks, keys_here
from scaleml.runtime.outcome import Outcome


@dataclass(frozen=True)
class End:
    """How a rank ended: what it would have told, had anybody heard it.

    Parameters
    ----------
    status, step, points, standing
        As of `scaleml.cluster.events.Left`.
    """

    status: str
    step: int
    points: Sequence[Sequence[int]]
    standing: Mapping[str, object]


@dataclass(frozen=True)
class RanksHere:
    """The ranks of a run in one process: those that are not over, and how those ended that are parked; by generation and rank."""

    living: Sequence[tuple[int, int]]
    parked: Mapping[tuple[int, int], End]


@dataclass(frozen=True)
class _Parked:
    outcome: Outcome
    seconds: float
    since: object = field(default_factory=object)
    """By which whoever ends it knows it: the loop must not hold the outcome itself."""


_parked: Final[dict[RankKey, _Parked]] = {}
_lock: Final = threading.Lock()


def end_of(outcome: Outcome) -> End:
    """Return what is to be told of an outcome."""
    points = [[point.step, point.state.commands] for point in outcome.points]
    standing = {} if outcome.standing is None else outcome.standing.facts
    return End(outcome.status, outcome.step, points, standing)


def park(key: RankKey, outcome: Outcome, worker: Worker, seconds: float) -> None:
    """Keep an outcome for so long; from any thread."""
    parked = _Parked(outcome, seconds)
    with _lock:
        _parked[key] = parked
    worker.loop.add_callback(worker.loop.call_later, seconds, _expire, key, parked.since)


def _expire(key: RankKey, since: object) -> None:
    with _lock:
        if key in _parked and _parked[key].since is since:  # nobody has picked it up since
            del _parked[key]


def forget_former(run: str, generation: int) -> None:
    """Forget what ranks of a run have left that others now go on from."""
    with _lock:
        for key in [key for key in _parked if key[0] == run and key[1] < generation]:
            del _parked[key]


# Calls out of band.


def ranks_here(run: str) -> RanksHere:
    """Return what this process has of a run."""
    living = [(generation, rank) for _, generation, rank in keys_here(run)]
    with _lock:
        mine = {key[1:]: end_of(parked.outcome) for key, parked in _parked.items() if key[0] == run}
    return RanksHere(living, mine)


def end_ranks(run: str, reason: str) -> None:
    """Abort all ranks of a run in this process, and forget those that are parked."""
    abort_ranks(run, reason)
    with _lock:
        for key in [key for key in _parked if key[0] == run]:
            del _parked[key]


# A Dask task.


def pick_up(key: RankKey) -> Outcome | None:
    """Return what a rank has left in this process, which is kept for another while; None where that is over."""
    with _lock:
        found = _parked.get(key)
    if found is None:
        return None
    park(key, found.outcome, get_worker(), found.seconds)
    return found.outcome
