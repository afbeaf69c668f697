"""Recovery of a run: from which point its ranks go on after a loss, who has what they need of it, and where they are. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from scaleml.cluster.calls import WorkerFacts
from scaleml.cluster.placement import Placement, usable
from scaleml.runtime.outcome import Recovered
from scaleml.strategies import Layout

Points = Mapping[int, int]
"""The recovery points that a rank has kept: step -> how many commands had been applied."""


Standings = Mapping[int, Mapping[str, Any]]
"""How ranks that kept their own pace stand: `Standing.facts` of the runtime, by rank."""


@dataclass(frozen=True)
class WayOn:
    """From where ranks go on.

    Parameters
    ----------
    step : int
        The recovery point; -1: the run begins again. Where ranks go on as they are, the rows since they began.
    commands : int
        How many commands had been applied.
    sources : tuple of int or None
        For each rank, the former rank that has what it needs: itself, or whoever has a lost one's; None where it begins again.
    began : int
        Where ranks go on as they are: rows that all had consumed when the first of them began.
    taken : tuple of float
        The rows since then of each that trains; nothing where all go back to a common step.
    bases : tuple of int
        Rows that are counted for each one's number, beside those.
    level : int
        The step of the one that is furthest.
    versions : dict
        How many updates are in the copies of lost servers, by rank; -1: all of them.
    """

    step: int
    commands: int
    sources: tuple[int | None, ...]
    began: int = 0
    taken: tuple[float, ...] = ()
    bases: tuple[int, ...] = ()
    level: int = 0
    versions: Mapping[int, int] = field(default_factory=dict)

    @property
    def is_exact(self) -> bool:
        """Whether all ranks go back to a common step, or begin again."""
        return not self.taken


def way_on(points: Mapping[int, Points], layout: Layout) -> WayOn:
    """Return the newest point that all ranks can go on from.

    Parameters
    ----------
    points : dict
        What each surviving rank has kept. A lost one's keeper has a copy of what only that had.
    layout : Layout
        Who is whose keeper.

    Examples
    --------
    >>> way_on({0: {8: 0, 16: 1}, 2: {16: 1, 24: 1}}, Layout(3)).sources
    (0, 2, 2)
    >>> way_on({0: {8: 0}, 1: {8: 0}}, Layout(4)).step  # rank 2's buddy is lost as well
    -1
    """
    ranks = layout.size
    sources = tuple(rank if rank in points else layout.keeper(rank) for rank in range(ranks))
    if points and all(source in points for source in sources):
        common = set.intersection(*(set(points[source]) for source in sources))
        if common:
            step = max(common)
            return WayOn(step, points[sources[0]][step], sources)
    return WayOn(-1, 0, (None,) * ranks)


def way_as_they_are(standings: Standings, layout: Layout) -> WayOn:
    """Return how ranks go on that keep their own pace: each as it is, a lost one from the next that trains, a lost server from a copy.

    Parameters
    ----------
    standings : dict
        How each surviving rank stands.
    layout : Layout
        Who trains.

    Examples
    --------
    >>> one = {"began": 0, "taken": [40.0, 16.0], "bases": [0, 0], "step": 5, "commands": 1, "copies": [[2, 9]]}
    >>> way = way_as_they_are({0: one}, Layout(2, servers=1))
    >>> way.sources, way.taken, way.versions
    ((0, 0, 0), (40.0, 16.0), {2: 9})
    """
    workers = layout.workers
    training = [rank for rank in range(workers) if rank in standings]
    if not training:
        return WayOn(-1, 0, (None,) * layout.size)
    sources: list[int | None] = [
        next(other % workers for other in range(rank, rank + workers) if other % workers in standings)
        for rank in range(workers)
    ]
    versions: dict[int, int] = {}
    for server in range(workers, layout.size):
        copies = {
            rank: dict(stands["copies"])[server]
            for rank, stands in standings.items()
            if server in dict(stands["copies"])
        }
        source = server if server in standings else max(copies, key=copies.__getitem__, default=None)
        sources.append(source)
        if source is not None and source != server:
            versions[server] = copies[source]
    taken = tuple(max(rows) for rows in zip(*(stands["taken"] for stands in standings.values()), strict=True))
    commands = min(stands["commands"] for stands in standings.values())
    began, bases = standings[training[0]]["began"], tuple(standings[training[0]]["bases"])
    level = max(standings[rank]["step"] for rank in training)
    return WayOn(round(began + sum(taken)), commands, tuple(sources), began, taken, bases, level, versions)


def replace_lost(placement: Placement, info: Mapping[str, WorkerFacts], names: Mapping[str, str]) -> Placement | None:
    """Return the placement with other workers in place of those that are gone; None while there are not enough.

    Parameters
    ----------
    placement : Placement
        The ranks' workers before.
    info : dict
        The workers that the scheduler knows now.
    names : dict
        How it called the workers of ``placement``: a nanny's next worker has the name of the last.
    """
    gone = [address for address in placement.workers if address not in info]
    free = [address for address in usable(info, placement.resources) if address not in placement.workers]
    taken: dict[str, str] = {}
    for address in gone:
        same = [other for other in free if str(info[other].get("name")) == names.get(address)]
        if not free:
            return None
        taken[address] = (same or free)[0]
        free.remove(taken[address])
    addresses = tuple(taken.get(address, address) for address in placement.addresses)
    return replace(placement, addresses=addresses)


def recovered_ranks(
    way: WayOn, before: Placement, lost: Collection[str], reached: int, clock: float, steps: Mapping[int, int]
) -> dict[int, Recovered]:
    """Return what each rank is told that goes on; those of ``lost`` workers are replacements.

    Where ranks go on as they are, ``steps`` has how far each of them had come.
    """

    def is_replacement(rank: int, source: int | None) -> bool:
        return before.addresses[rank] in lost if source is None else source != rank

    return {
        rank: Recovered(
            rank,
            way.step if way.is_exact else steps.get(rank, 0),
            reached,
            clock,
            is_replacement(rank, source),
            began=way.began,
            taken=way.taken,
            bases=way.bases,
            level=way.level,
            known=way.commands,
        )
        for rank, source in enumerate(way.sources)
    }
