"""The outcome: what a rank leaves behind, and the plan of the rank that goes on from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from scaleml.arrays import Array
from scaleml.faults import left_after_loss
from scaleml.models.buffers import Buffers
from scaleml.runtime.best_parameters import BestParameters
from scaleml.runtime.commands import Command
from scaleml.runtime.plan import Plan
from scaleml.runtime.recovery_points import RecoveryPoint, rebuilt
from scaleml.runtime.train_state import TrainState

Status = Literal["finished", "stopped", "switched", "suspended", "failed"]


@dataclass
class Outcome:
    """How a rank ended: ``finished``, ``stopped``, ``switched`` (others go on), ``suspended`` (it lost a peer and can go on), ``failed``.

    Parameters
    ----------
    status : str
    step : int
        Steps of the rank; of a server updates.
    params : (stop - start,) array or None
        What is to be given out of what this rank holds of the vector: averaged, or the best, where that was asked for; of a
        failed rank those of the last good step.
    points : tuple of RecoveryPoint
        Of a suspended rank: what it can go on from.
    buffers : Buffers or None
        Those of the model that belong to ``params``, where it has some, on a rank that trains.
    error, trace : str
        Why it failed.
    epochs : int
        How many were trained.
    losses, scores : tuple of float
        The mean training objective and the held-out score of each epoch, where a stop rule looks at them.
    widest : int or None
        With servers: the most clocks that any push was ahead of the slowest worker.
    best : BestParameters
        Of the evaluations so far, on a rank that trains.
    state : TrainState or None
        Where training could go on from. Of a server: its slice.
    """

    status: Status
    step: int
    params: Array | None = None
    error: str = ""
    trace: str = ""
    epochs: int = 0
    losses: tuple[float, ...] = ()
    scores: tuple[float, ...] = ()
    widest: int | None = None
    best: BestParameters = field(default_factory=BestParameters)
    state: TrainState | None = None
    buffers: Buffers | None = None
    points: tuple[RecoveryPoint, ...] = ()


@dataclass(frozen=True)
class Recovered:
    """What a rank is told that goes on after a loss.

    Parameters
    ----------
    rank : int
        Which rank that is.
    step : int
        The recovery point to go on from; -1 where none is left, and the run begins again.
    reached : int
        The step that ranks had come to.
    clock : float
        What the training clock shows.
    is_replacement : bool
        Whether the rank itself was lost: its buddy has what was private to it.
    commands : tuple of Command
        Of the first rank: what the run was told since that point.
    """

    rank: int
    step: int
    reached: int
    clock: float
    is_replacement: bool
    commands: tuple[Command, ...] = ()


def resume_from(plan: Plan, before: Sequence[Outcome]) -> Plan:
    """Return a rank's plan, given the outcomes of the training rank that it follows and of the servers, if there were some."""
    if not before:
        return plan
    first, *servers = before
    state = first.state
    assert state is not None, "the rank before left nothing to go on from"
    if servers:
        slices = TrainState.merge([server.state for server in servers if server.state is not None])
        state = replace(state, params=slices.params, arrays=slices.arrays, updates=slices.updates)
    assert state.optimizer is not None and state.batch_size is not None
    optimizer, batch_size = state.optimizer, state.batch_size
    return replace(plan, start=state, resumed=True, optimizer=optimizer, batch_size=batch_size, faults=state.faults)


def recover_from(plan: Plan, recovered: Recovered, before: Outcome | None) -> Plan:
    """Return a rank's plan, given its own outcome before the loss, or, of a replacement, that of its buddy."""
    if before is None:
        return replace(plan, recovered=True, clock=recovered.clock)
    point = next(each for each in before.points if each.step == recovered.step)
    state = point.state
    if recovered.is_replacement:
        state = rebuilt(state, TrainState.from_bytes(point.neighbour))
    faults = left_after_loss(state.faults, [recovered.rank] if recovered.is_replacement else [], recovered.reached)
    state = replace(state, faults=faults)
    assert state.optimizer is not None and state.batch_size is not None
    return replace(
        plan,
        strategy=point.strategy,
        evaluated=point.evaluations,
        start=state,
        resumed=True,
        recovered=True,
        clock=recovered.clock,
        optimizer=state.optimizer,
        batch_size=state.batch_size,
        faults=state.faults,
    )
