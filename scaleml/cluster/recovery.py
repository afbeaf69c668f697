"""Recovery of a run: from which point its ranks go on after a loss, who has what they need of it, and where they are. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from scaleml.cluster.calls import WorkerFacts
from scaleml.cluster.placement import Placement, usable
from scaleml.runtime.outcome import Recovered

Points = Mapping[int, int]
"""The recovery points that a rank has kept: step -> how many commands had been applied."""


@dataclass(frozen=True)
class WayOn:
    """From where ranks go on.

    Parameters
    ----------
    step : int
        The recovery point; -1: the run begins again.
    commands : int
        How many commands had been applied.
    sources : tuple of int or None
        For each rank, the former rank that has what it needs: itself, or a lost one's buddy; None where it begins again.
    """

    step: int
    commands: int
    sources: tuple[int | None, ...]


def way_on(points: Mapping[int, Points], ranks: int) -> WayOn:
    """Return the newest point that all ranks can go on from.

    Parameters
    ----------
    points : dict
        What each surviving rank has kept. The next rank has a copy of what is private to a lost one.
    ranks : int
        How many there are.

    Examples
    --------
    >>> way_on({0: {8: 0, 16: 1}, 2: {16: 1, 24: 1}}, 3)
    WayOn(step=16, commands=1, sources=(0, 2, 2))
    >>> way_on({0: {8: 0}, 1: {8: 0}}, 4).step  # rank 2's buddy is lost as well
    -1
    """
    sources = tuple(rank if rank in points else (rank + 1) % ranks for rank in range(ranks))
    if points and all(source in points for source in sources):
        common = set.intersection(*(set(points[source]) for source in sources))
        if common:
            step = max(common)
            return WayOn(step, points[sources[0]][step], sources)
    return WayOn(-1, 0, (None,) * ranks)


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
    way: WayOn, before: Placement, lost: Collection[str], reached: int, clock: float
) -> dict[int, Recovered]:
    """Return what each rank is told that goes on; those of ``lost`` workers are replacements."""

    def is_replacement(rank: int, source: int | None) -> bool:
        return before.addresses[rank] in lost if source is None else source != rank

    return {
        rank: Recovered(rank, way.step, reached, clock, is_replacement(rank, source))
        for rank, source in enumerate(way.sources)
    }
