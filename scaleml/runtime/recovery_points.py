"""Recovery points: states that a rank keeps in memory, taken by all ranks at the same step, for whoever goes on after a loss.

What all ranks have alike is with every survivor. What is private to a rank is copied to its *buddy*, the next rank: so one rank, or
several that are no neighbours, can be lost. A server is asked by its *keeper* (`Layout.keeper`) for all that it has after a step, before
that pushes the next gradient: no update of the next step can be in it. Two points are kept, for a rank may be lost while the others
take the newer one. From a point the ranks replay the steps since, which are functions of the state, and come to the same bits.

A point costs a copy of the state. The ranks agree, in the point itself, after how many steps the next one is due, by what the steps
and the point took: often enough to lose little, so rarely that nobody notices (in-memory checkpoints: Wang et al., Gemini, SOSP 2023).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from scaleml.runtime.train_state import TrainState
from scaleml.strategies import Strategy
from scaleml.telemetry.columns import Measures

if TYPE_CHECKING:
    from scaleml.runtime.training_rank import TrainingRank

SECONDS: Final = 0.05
"""Training time between two points, if they are cheap."""
SHARE: Final = 0.005
"""The share of the time that taking points may cost."""
_MOST: Final = 100_000  # steps from one point to the next
_TAG: Final = 77  # of messages to the buddy


@dataclass(frozen=True)
class RecoveryPoint:
    """What one rank can bring back of one step.

    Parameters
    ----------
    step : int
        Steps done.
    state : TrainState
        The rank's own.
    neighbour : bytes
        What is private to the rank before it, as a `TrainState`.
    strategy : Strategy
        The one in force.
    evaluations : tuple
        The newest, for a history that the first rank has not told of them.
    servers : dict of bytes
        What servers had after this step, by rank, of those whose keeper this rank is.
    looked : int
        Evaluations so far.
    """

    step: int
    state: TrainState
    neighbour: bytes
    strategy: Strategy
    evaluations: tuple[Measures, ...] = ()
    servers: Mapping[int, bytes] = field(default_factory=dict)
    looked: int = 0


class RecoveryPoints:
    """The points of one rank.

    Parameters
    ----------
    rank : TrainingRank
        Whose state is kept.
    wanted : bool
        Whether any is taken: not where nobody would go on.

    Attributes
    ----------
    due : float
        The step at which the next one is to be looked at, the same on all ranks.
    kept : tuple of RecoveryPoint
        The newest two.
    """

    def __init__(self, rank: TrainingRank, *, wanted: bool) -> None:
        self._rank = rank
        self.kept: tuple[RecoveryPoint, ...] = ()
        self.due: float = np.inf
        self._wanted = wanted
        self._is_forced = False
        self._since, self._from = 0.0, 0
        self._costs: deque[float] = deque(maxlen=3)

    def begin(self) -> None:
        """Start counting: training begins. Before the first step of a run its seed is as good a point; ranks that go on take one."""
        if self._wanted:
            self._since, self._from = self._rank.world.clock.now(), self._rank.state.step
            self.due = self._from + 1
            if self._rank.plan.resumed:
                self._take()

    def expect(self) -> None:
        """Take one at this step, which all ranks know: a command has changed what earlier ones hold."""
        if self._wanted:
            self.due, self._is_forced = self._rank.state.step, True

    def look(self) -> None:
        """Take a point if it is time, and agree on when to look again; collective."""
        rank = self._rank
        now, steps = rank.world.clock.now(), max(1, rank.state.step - self._from)
        mine = np.array([now - self._since, max(SECONDS, min(self._costs, default=0.0) / SHARE)], np.float64)
        seconds, wanted = (float(most) for most in rank.group.allgather(mine).max(axis=0))
        a_step = max(seconds / steps, 1e-9)
        if self._is_forced or seconds >= wanted / 2:
            self._take()
            self._since, self._from = rank.world.clock.now(), rank.state.step
            seconds, self._is_forced = 0.0, False
        self.due = rank.state.step + min(_MOST, max(1, int((wanted - seconds) / a_step)))

    def _take(self) -> None:
        rank, now = self._rank, self._rank.world.clock.now
        began = now()
        state = rank.snapshot()
        neighbour, seen = self._exchange(state), tuple(rank.evaluation.recent)
        servers = rank.servers.keep(state.step) if rank.has_servers else {}
        # On a slow network most of it is the way to the buddy. The least of the last few: a wait for that is part of any step.
        self._costs.append(now() - began)
        point = RecoveryPoint(state.step, state, neighbour, rank.strategy, seen, servers, rank.evaluation.done)
        self.kept = (*self.kept[-1:], point)

    def _exchange(self, state: TrainState) -> bytes:
        """Give the next rank what is private here, and return what is private to the one before."""
        group = self._rank.group
        if group.size == 1:  # with its worker all is lost; where its client is, it is not
            return b""
        reading = group.meter.reading()
        sent = group.send_start(private_part(state).to_bytes(), (group.rank + 1) % group.size, tag=_TAG)
        theirs = group.recv((group.rank - 1) % group.size, tag=_TAG).payload
        sent.wait()
        group.meter.set(reading)  # no traffic of the strategy's, which the ledger shows
        assert isinstance(theirs, bytes)
        return theirs


def private_part(state: TrainState) -> TrainState:
    """Return what of a state no other rank has; settings, which all have, are left out."""
    private = state.private
    arrays = {name: array for name, array in state.arrays.items() if name in private}
    params = state.params if "params" in private else state.params[:0]
    best = replace(state.best, params=None, buffers=None)
    return replace(state, params=params, arrays=arrays, best=best, optimizer=None)


def rebuilt(donor: TrainState, private: TrainState) -> TrainState:
    """Return a lost rank's state, of what another one has alike and what its buddy kept."""
    params = private.params if len(private.params) or not len(donor.params) else donor.params
    alike = {name: array for name, array in donor.arrays.items() if name not in donor.private}
    return replace(private, params=params, arrays=alike | private.arrays, best=donor.best, optimizer=donor.optimizer)
