"""Shrinking: after a loss a run goes on without the lost ranks: which ones stay, and who has what of those that are left out. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from scaleml.cluster.calls import WorkerFacts
from scaleml.cluster.losses import Reached
from scaleml.cluster.placement import Placement, usable
from scaleml.cluster.recovery import Points, WayOn
from scaleml.faults import renumbered
from scaleml.runtime.outcome import Recovered
from scaleml.runtime.plan import Plan
from scaleml.runtime.rank_change import RankChange
from scaleml.strategies import Layout


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


def way_of_those(points: Mapping[int, Points], stay: Sequence[int], before: Layout) -> tuple[WayOn, RankChange]:
    """Return the newest point that ranks can go on from, and what each brings of the former ones.

    Parameters
    ----------
    points : dict
        What each surviving rank has kept. The next rank has a copy of what is private to a lost one, a server's keeper of all it had.
    stay : sequence of int
        The former numbers of the ranks that train on; all servers go on.
    before : Layout
        Who trained.

    Examples
    --------
    >>> way, change = way_of_those({0: {8: 0, 16: 1}, 2: {16: 1, 24: 1}}, [0, 2], Layout(3))
    >>> way.step, way.sources, change.former, change.brings
    (16, (0, 2), (0, 2), (False, True))
    >>> way_of_those({1: {8: 0}}, [1], Layout(3, servers=1))[0].step  # with the server, its keeper is lost
    -1
    """
    workers = before.workers
    training = [rank for rank in sorted(points) if rank < workers]
    servers = [server if server in points else before.keeper(server) for server in range(workers, before.size)]
    needed = [points.get(rank, {}) for rank in (*training, *servers)]
    common = set.intersection(*map(set, needed)) if training else set()
    if not common:
        nobody = (None,) * (len(stay) + len(servers))
        return WayOn(-1, 0, nobody), RankChange(workers, tuple(stay), (False,) * len(stay), before.servers)
    step, first = max(common), training[0]
    sources, former, brings = [], [], []
    for rank in stay:
        buddy = (rank + 1) % workers
        source = rank if rank in points else buddy if buddy in points else first
        sources.append(source)
        former.append(rank if source in (rank, buddy) else None)
        left_out = (rank - 1) % workers
        brings.append(rank in points and left_out not in points and left_out not in stay)
    way = WayOn(step, points[first][step], (*sources, *servers))
    return way, RankChange(workers, tuple(former), tuple(brings), before.servers)


def as_they_are_of_those(way: WayOn, stay: Sequence[int], before: Layout) -> tuple[WayOn, RankChange]:
    """Return how those go on that stay, of ranks with a pace of their own: each with what it has.

    Parameters
    ----------
    way : WayOn
        How all of them would.
    stay : sequence of int
        The former numbers of the ranks that train on; all servers go on.
    before : Layout
        Who trained.

    Examples
    --------
    >>> way = WayOn(56, 0, (0, 0, 3), 0, (40.0, 16.0), (0, 0))
    >>> as_they_are_of_those(way, [0], Layout(2, servers=1))[0].sources
    (0, 3)
    """
    sources = tuple(way.sources[rank] for rank in _numbers(stay, before))
    return replace(way, sources=sources), RankChange(before.workers, tuple(stay), servers=before.servers)


def placed_anew(placement: Placement, layout: Layout, training: Sequence[str]) -> Placement:
    """Return the placement of ranks that train on these workers, and servers beside them.

    Examples
    --------
    >>> before = Placement(Layout(3, servers=1), ("a", "b", "c", "c"), 1)
    >>> placed_anew(before, Layout(2, servers=1), ["a", "b"]).addresses
    ('a', 'b', 'b')
    """
    servers = [training[layout.beside(server)] for server in range(layout.workers, layout.size)]
    return replace(placement, layout=layout, addresses=(*training, *servers))


def told_to(
    way: WayOn,
    change: RankChange,
    stay: Sequence[int],
    before: Layout,
    reached: int,
    clock: float,
    replaced: Collection[int],
    steps: Mapping[int, int],
) -> dict[int, Recovered]:
    """Return what each rank is told that goes on; those of ``replaced`` former ranks are on other workers.

    Where ranks go on as they are, ``steps`` has how far each of them had come.
    """
    told = {}
    for rank, (was, source) in enumerate(zip(_numbers(stay, before), way.sources, strict=True)):
        if source is None:
            is_rebuilt = was in replaced
        else:
            is_rebuilt = source != was and (rank >= len(stay) or change.former[rank] is not None)
        told[rank] = Recovered(
            was,
            way.step if way.is_exact else steps.get(was, 0),
            reached,
            clock,
            is_rebuilt,
            began=way.began,
            taken=way.taken,
            bases=way.bases,
            level=way.level,
            known=way.commands,
        )
    return told


def reached_by_those(way: WayOn, stay: Sequence[int], before: Layout, reached: Reached) -> dict[int, tuple[int, int]]:
    """Return how far the ranks that go on as they are have come, under their new numbers, which go on counting rows where they were.

    Examples
    --------
    >>> way = WayOn(56, 0, (1, 3), 0, (40.0, 16.0), (0, 8))
    >>> reached_by_those(way, [1], Layout(2, servers=1), {0: (5, 40), 1: (2, 24), 2: (6, 0)})
    {0: (2, 40), 1: (6, 0)}
    """
    found = {}
    for rank, was in enumerate(_numbers(stay, before)):
        trains = rank < len(stay) and not way.is_exact
        found[rank] = reached.get(was, (0, 0))[0], round(way.bases[rank] + way.taken[rank]) if trains else 0
    return found


def plan_of_those(plan: Plan, stay: Sequence[int], lost: Sequence[int], reached: int) -> Plan:
    """Return the plan of the ranks that go on; ``lost`` ones had come to step ``reached``."""
    numbers = {was: rank for rank, was in enumerate(_numbers(stay, plan.layout))}
    plan = plan.after_loss(lost, reached).with_workers(len(stay), [plan.gpu(rank) for rank in stay])
    return replace(plan, faults=renumbered(plan.faults, numbers))


def _numbers(stay: Sequence[int], before: Layout) -> list[int]:
    """Return the former numbers of all ranks that go on, servers included."""
    return [*stay, *range(before.workers, before.size)]
