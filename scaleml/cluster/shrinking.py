"""Shrinking: after a loss a run goes on without the lost ranks: which ones stay, and who has what of those that are left out. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from scaleml.cluster.calls import WorkerFacts
from scaleml.cluster.placement import Placement, usable
from scaleml.cluster.recovery import Points, WayOn
from scaleml.faults import renumbered
from scaleml.runtime.outcome import Recovered
from scaleml.runtime.plan import Plan
from scaleml.runtime.rank_change import RankChange


@dataclass(frozen=True)
class WorkerRange:
    """How many ranks a run may train with.

    Parameters
    ----------
    least, most : int
        With fewer it waits for other workers, more it does not use.
    shrinks : bool
        Whether it goes on with fewer after a loss.
    grows : bool
        Whether it takes workers that join.
    """

    least: int
    most: int
    shrinks: bool = False
    grows: bool = False

    @property
    def least_after_leaving(self) -> int:
        """The least ranks to go on with where workers have left on their own: nobody takes their places."""
        return self.least if self.grows else 1

    @classmethod
    def fixed(cls, ranks: int, *, shrinks: bool = False) -> WorkerRange:
        """Return the range of a run that has so many, if it does not shrink."""
        return cls(1 if shrinks else ranks, ranks, shrinks)

    def after_update(self, ranks: int) -> WorkerRange:
        """Return the range of the run when it was told to train with so many."""
        return WorkerRange(min(self.least, ranks) if self.shrinks else ranks, ranks, self.shrinks)


def those_who_stay(
    placement: Placement, gone: Collection[str], info: Mapping[str, WorkerFacts], least: int
) -> tuple[list[int], list[str]] | None:
    """Return which ranks go on after a loss, in their order, and on which workers; None while there are not enough workers.

    Parameters
    ----------
    placement : Placement
        Before the loss.
    gone : collection of str
        The workers that were lost since: one that is back at its address is another one.
    info : dict
        The workers that the scheduler knows now.
    least : int
        Ranks at least: if fewer live, workers that are free take the places of lost ones.
    """
    training = placement.addresses[: placement.layout.workers]
    places = {rank: at for rank, at in enumerate(training) if at in info and at not in gone}
    free = iter(at for at in usable(info, placement.resources) if at not in places.values())
    for rank in range(len(training)):
        if len(places) >= min(least, len(training)):
            break
        if rank not in places:
            other = next(free, None)
            if other is None:
                return None
            places[rank] = other
    stay = sorted(places)
    return (stay, [places[rank] for rank in stay]) if stay else None


def way_of_those(points: Mapping[int, Points], stay: Sequence[int], before: int) -> tuple[WayOn, RankChange]:
    """Return the newest point that ranks can go on from, and what each brings of the former ones.

    Parameters
    ----------
    points : dict
        What each surviving rank has kept. The next rank has a copy of what is private to a lost one.
    stay : sequence of int
        The former numbers of the ranks that go on.
    before : int
        How many there were.

    Examples
    --------
    >>> way, change = way_of_those({0: {8: 0, 16: 1}, 2: {16: 1, 24: 1}}, [0, 2], 3)
    >>> way.step, way.sources, change.former, change.brings
    (16, (0, 2), (0, 2), (False, True))
    """
    common = set.intersection(*map(set, points.values())) if points else set()
    if not common:
        nobody = (None,) * len(stay)
        return WayOn(-1, 0, nobody), RankChange(before, tuple(stay), (False,) * len(stay))
    step, first = max(common), min(points)
    sources, former, brings = [], [], []
    for rank in stay:
        buddy = (rank + 1) % before
        source = rank if rank in points else buddy if buddy in points else first
        sources.append(source)
        former.append(rank if source in (rank, buddy) else None)
        left_out = (rank - 1) % before
        brings.append(rank in points and left_out not in points and left_out not in stay)
    return WayOn(step, points[first][step], tuple(sources)), RankChange(before, tuple(former), tuple(brings))


def told_to(
    way: WayOn, change: RankChange, stay: Sequence[int], reached: int, clock: float, replaced: Collection[int]
) -> dict[int, Recovered]:
    """Return what each rank is told that goes on; those of ``replaced`` former ranks are on other workers."""
    told = {}
    for rank, (was, source) in enumerate(zip(stay, way.sources, strict=True)):
        is_rebuilt = was in replaced if source is None else source != was and change.former[rank] is not None
        told[rank] = Recovered(was, way.step, reached, clock, is_rebuilt)
    return told


def plan_of_those(plan: Plan, stay: Sequence[int], lost: Sequence[int], reached: int) -> Plan:
    """Return the plan of the ranks that go on; ``lost`` ones had come to step ``reached``."""
    plan = plan.after_loss(lost, reached).with_workers(len(stay), [plan.gpu(rank) for rank in stay])
    return replace(plan, faults=renumbered(plan.faults, {was: rank for rank, was in enumerate(stay)}))
