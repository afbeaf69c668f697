"""The outcome: what a rank leaves behind, and the plan of the rank that goes on from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from typing import Literal

from scaleml.arrays import Array
from scaleml.compression.error_feedback import PREFIX
from scaleml.faults import left_after_loss
from scaleml.models.buffers import Buffers
from scaleml.runtime.best_parameters import BestParameters
from scaleml.runtime.commands import Command
from scaleml.runtime.fault_injection import still_to_come
from scaleml.runtime.parameter_server.shared_server import TALLY, settled
from scaleml.runtime.plan import Plan
from scaleml.runtime.recovery_points import RecoveryPoint, rebuilt
from scaleml.runtime.standing import Standing
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
    standing : Standing or None
        Of a suspended rank that kept its own pace: how it stands, beside ``state``.
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
    standing: Standing | None = None


@dataclass(frozen=True)
class Recovered:
    """What a rank is told that goes on after a loss.

    Parameters
    ----------
    rank : int
        Which rank that is.
    step : int
        The recovery point to go on from; -1 where none is left, and the run begins again. Where ranks go on as they are, which step is
        the next one of a replacement.
    reached : int
        The step that ranks had come to.
    clock : float
        What the training clock shows.
    is_replacement : bool
        Whether the rank itself was lost: its buddy has what was private to it.
    commands : tuple of Command
        Of the first rank: what the run was told since that point.
    began : int
        Where ranks go on as they are: see `Standing`.
    taken : tuple of float
        The same; nothing where they go back to a common step.
    bases : tuple of int
        The same.
    level : int
        The step of the one that is furthest: where ranks may only be so many steps apart, all go on as if they were there.
    known : int
        How many commands need not be told again.
    """

    rank: int
    step: int
    reached: int
    clock: float
    is_replacement: bool
    commands: tuple[Command, ...] = ()
    began: int = 0
    taken: tuple[float, ...] = ()
    bases: tuple[int, ...] = ()
    level: int = 0
    known: int = 0


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
    began = state.consumed
    return replace(
        plan, start=state, began=began, resumed=True, optimizer=optimizer, batch_size=batch_size, faults=state.faults
    )


def recover_from(plan: Plan, recovered: Recovered, before: Outcome | None, trained: int | None = None) -> Plan:
    """Return a rank's plan, given its own outcome before the loss, or, of a replacement, that of whoever has what it needs.

    ``trained`` is how many ranks trained then, if not as many as do now: what follows of that, `follow_change` has to see to.
    """
    plan = replace(plan, recovered=True, clock=recovered.clock)
    trained = plan.layout.workers if trained is None else trained
    if recovered.taken:
        looked = int(sum(recovered.taken) // plan.evaluate_every) if plan.evaluate_every else 0
        plan = replace(plan, began=recovered.began, taken=recovered.taken, bases=recovered.bases, looked=looked)
    if before is None:
        return plan
    if recovered.taken:
        state = _as_it_is(plan, recovered, before, trained)
        evaluated = () if before.standing is None else before.standing.evaluations
        plan = replace(plan, evaluated=evaluated)
    else:
        point = next(each for each in before.points if each.step == recovered.step)
        state = point.state
        if recovered.rank >= trained:
            if recovered.is_replacement:
                state = TrainState.from_bytes(point.servers[recovered.rank])
            plan = replace(plan, began=state.consumed)  # a server consumes no rows itself
        elif recovered.is_replacement:
            state = rebuilt(state, TrainState.from_bytes(point.neighbour))
        plan = replace(plan, strategy=point.strategy, evaluated=point.evaluations, looked=point.looked)
    faults = left_after_loss(state.faults, [recovered.rank] if recovered.is_replacement else [], recovered.reached)
    state = replace(state, faults=faults)
    assert state.optimizer is not None and state.batch_size is not None
    return replace(
        plan, start=state, resumed=True, optimizer=state.optimizer, batch_size=state.batch_size, faults=state.faults
    )


def _as_it_is(plan: Plan, recovered: Recovered, before: Outcome, trained: int) -> TrainState:
    """Return the state that a rank goes on from where nobody goes back to an earlier step."""
    standing, state, rank = before.standing, before.state, recovered.rank
    assert standing is not None and state is not None, "the rank before left nothing to go on from"
    faults = state.faults
    if recovered.is_replacement:  # where ranks have other numbers now, those of lost ones are over
        faults = tuple(fault for fault in plan.faults if fault.rank == rank and trained == plan.layout.workers)
    if rank >= trained:
        left = standing.slices.get(rank)
        if left is not None and TALLY not in left.arrays:
            return replace(left, commands=recovered.known)
        if left is not None:
            settings = {"optimizer": state.optimizer, "batch_size": state.batch_size, "faults": faults}
            state = replace(settled(left, trained), **settings)  # type: ignore[arg-type]
        return replace(state, commands=recovered.known)
    consumed = recovered.began + round(sum(recovered.taken))
    state = replace(
        state,
        samples=recovered.bases[rank] + round(recovered.taken[rank]),
        consumed=consumed,
        commands=recovered.known,
        faults=faults,
    )
    if recovered.is_replacement:
        arrays = {name: array for name, array in state.arrays.items() if not name.startswith(PREFIX)}
        state = replace(state, step=recovered.step, arrays=arrays, epoch_loss=0.0, epoch_weight=0.0)
    if plan.layout.servers and isfinite(plan.serving.ahead):
        faults = state.faults if recovered.is_replacement else still_to_come(faults, before.step, recovered.level)
        state = replace(state, step=recovered.level, faults=faults)
    return state
