"""A change of the number of ranks in mid-run: who goes on as which rank, and what becomes of what only former ranks had.

What all ranks have alike, whoever goes on takes over as it is. What is private to ranks (slots and parameters of their own, under local
strategies) becomes the mean over all former ones, also those that were lost, as far as others had a copy. What codecs have not sent
yet is left behind: part of it belongs to blocks of the vector that depend on the number of ranks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, final

import numpy as np

from scaleml.arrays import Array, namespace
from scaleml.compression.error_feedback import PREFIX
from scaleml.faults import Fault, renumbered
from scaleml.runtime.outcome import Outcome, Recovered
from scaleml.runtime.parameter_server.shared_server import TAKEN
from scaleml.runtime.plan import Plan
from scaleml.runtime.schedule_place import follow_servers_pace
from scaleml.runtime.train_state import TrainState

if TYPE_CHECKING:
    from scaleml.runtime.training_rank import TrainingRank


@final
@dataclass(frozen=True)
class RankChange:
    """Which rank goes on as which.

    Parameters
    ----------
    before : int
        How many trained.
    former : tuple of int or None
        For each rank that trains now, which one it was, or whose private part it has got; None for a new one.
    brings : tuple of bool
        For each of them, whether it also brings what was private to the rank before its former one, which is left out.
    servers : int
        How many servers stand after the ranks that train, and go on as well.

    Examples
    --------
    >>> RankChange(3, (0, 2), (False, True)).numbers  # rank 1 of three was lost
    {0: 0, 2: 1}
    """

    before: int
    former: tuple[int | None, ...]
    brings: tuple[bool, ...] = ()
    servers: int = 0

    @classmethod
    def between(cls, before: Sequence[str], after: Sequence[str]) -> RankChange:
        """Return the change from ranks on these workers to ranks on those.

        Examples
        --------
        >>> RankChange.between(["a", "b", "c"], ["a", "c", "d"]).former
        (0, 2, None)
        """
        places = {worker: rank for rank, worker in enumerate(before)}
        return cls(len(before), tuple(places.get(worker) for worker in after))

    @property
    def numbers(self) -> dict[int, int]:
        """What number each former rank that goes on has now."""
        found = {was: rank for rank, was in enumerate(self.former) if was is not None}
        return found | {self.before + server: len(self.former) + server for server in range(self.servers)}

    def faults(self, faults: Sequence[Fault]) -> tuple[Fault, ...]:
        """Return the faults of those who go on, under their new numbers."""
        return renumbered(faults, self.numbers)


@dataclass(frozen=True)
class Bequest:
    """What one rank brings of former ones, to be made one of with what the others bring.

    Parameters
    ----------
    change : RankChange
    neighbour : TrainState or None
        What was private to a rank that is left out.
    """

    change: RankChange
    neighbour: TrainState | None


def follow_change(
    plan: Plan, change: RankChange, rank: int, recovered: Recovered | None, before: Sequence[Outcome]
) -> tuple[Plan, Bequest | None]:
    """Return a rank's plan under its new number, and after a loss what it brings of former ranks.

    Parameters
    ----------
    plan : Plan
        Of the rank, given what those before it have left.
    change : RankChange
    rank : int
        Its number now.
    recovered : Recovered or None
        What it was told, if others were lost.
    before : sequence of Outcome
        Of the former rank first.
    """
    if recovered is not None and recovered.taken:
        plan = _shared_out(plan, change)
    state = plan.start
    if not plan.resumed or state is None:  # the run begins again, and its plan has the new numbers already
        return plan, None
    if rank >= len(change.former):
        return plan if recovered is None else _of_server(plan, state, change), None
    faults = change.faults(plan.faults) if change.former[rank] is not None else ()
    if recovered is None:
        state = replace(state, samples=samples_of(state.counted, rank), faults=faults)
        return replace(plan, start=state, faults=faults), None
    plan = replace(plan, renumbered=True)
    if recovered.taken:  # each goes on with what it has
        state = replace(state, samples=samples_of(state.counted, rank), faults=faults)
        return replace(plan, start=state, faults=faults), None
    neighbour = None
    if change.brings[rank]:
        point = next(each for each in before[0].points if each.step == recovered.step)
        neighbour = TrainState.from_bytes(point.neighbour)
    return replace(plan, start=replace(state, faults=faults), faults=faults), Bequest(change, neighbour)


def _shared_out(plan: Plan, change: RankChange) -> Plan:
    """Return the plan of ranks with a pace of their own, each of which has its part of all rows that former ones have consumed."""
    counted = [base + round(rows) for base, rows in zip(plan.bases, plan.taken, strict=True)]
    before = () if plan.start is None else plan.start.counted[change.before :]
    counted += before
    parts = shares(sum(plan.taken), len(change.former))
    bases = tuple(samples_of(counted, rank) - round(rows) for rank, rows in enumerate(parts))
    start = plan.start if plan.start is None else replace(plan.start, counted=tuple(counted))
    return replace(plan, taken=parts, bases=bases, start=start)


def _of_server(plan: Plan, state: TrainState, change: RankChange) -> Plan:
    """Return the plan of a server that goes on with other ranks than it had: as many rows are theirs, and a batch is in as many updates."""
    workers = len(change.former)
    faults, arrays = change.faults(plan.faults), {**state.arrays}
    arrays[TAKEN] = np.array(shares(float(arrays[TAKEN].sum()), workers))
    state = replace(state, arrays=arrays, faults=faults)
    plan = replace(plan, start=state, faults=faults, renumbered=True)
    parts, before = plan.strategy.updates_a_batch(workers), plan.strategy.updates_a_batch(change.before)
    if "schedule" in arrays and parts != before:
        arrays["schedule"] = arrays["schedule"].copy()  # others may go on from it, too
        follow_servers_pace(plan, state, plan.batch_size, parts)
    return plan


def shares(rows: float, ranks: int) -> tuple[float, ...]:
    """Return about equal whole parts of some rows.

    Examples
    --------
    >>> shares(80.0, 3)
    (27.0, 27.0, 26.0)
    """
    whole, left = divmod(round(rows), ranks)
    return tuple(float(whole + (rank < left)) for rank in range(ranks))


def samples_of(counted: Sequence[int], rank: int) -> int:
    """Return how many rows a rank of this number has consumed, whoever it was."""
    return counted[rank] if rank < len(counted) else 0


def take_over(rank: TrainingRank, bequest: Bequest) -> None:
    """Make one of what former ranks had for themselves: each rank brings some of it; collective."""
    group, state, change = rank.group, rank.state, bequest.change
    own = change.former[group.rank]
    parts = [state] if own is not None else []
    if bequest.neighbour is not None:
        parts.append(bequest.neighbour)
    _count(rank, bequest)
    count = float(group.allgather(np.array([len(parts)], np.float64)).sum())

    def mean(array: Array, others: Sequence[Array]) -> None:
        if own is None:
            array[:] = 0
        for other in others:
            array += namespace(array).asarray(other)
        group.allreduce(array)
        array /= count

    left_out = [part for part in parts if part is not state]
    rank.evaluation.buffers.follow()
    rank.evaluation.buffers.agree()
    if not state.committed:
        mean(state.params, [part.params for part in left_out])
    for name in [name for name in state.arrays if name in state.private]:  # in the order that all ranks have
        if name.startswith(PREFIX):
            del state.arrays[name]
        elif name != "schedule":
            mean(state.arrays[name], [part.arrays[name] for part in left_out])
    state.committed = True


def _count(rank: TrainingRank, bequest: Bequest) -> None:
    """Have each rank go on counting where the rank of its number was, and all know what numbers that are gone had consumed."""
    group, state, change = rank.group, rank.state, bequest.change
    known = np.zeros(max(change.before, len(state.counted), group.size), np.float64)
    own = change.former[group.rank]
    if own is not None:
        known[own] = state.samples
    if bequest.neighbour is not None:
        assert own is not None, "a buddy goes on"
        known[(own - 1) % change.before] = bequest.neighbour.samples
    known = group.allgather(known).sum(axis=0)
    known[change.before : len(state.counted)] = state.counted[change.before :]
    state.counted = tuple(int(rows) for rows in known)
    state.samples = rank.recorder.samples = samples_of(state.counted, group.rank)
