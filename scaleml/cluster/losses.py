"""Losses: what is gone for good with ranks that kept their own pace, in words. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil

from scaleml.cluster.recovery import WayOn
from scaleml.runtime.plan import Plan
from scaleml.strategies.base import ServerStrategy

Reached = Mapping[int, tuple[int, int]]
"""How far ranks had come, as far as they have told: steps, and rows of their own."""


def losses(way: WayOn, lost: Sequence[int], plan: Plan, reached: Reached) -> list[str]:
    """Return what is lost where others go on as they are.

    Parameters
    ----------
    way : WayOn
        How they go on.
    lost : sequence of int
        The ranks that are replaced.
    plan : Plan
        The mathematics.
    reached : mapping
        What each had told last.
    """
    workers = plan.layout.workers
    said = []
    for rank in lost:
        step, samples = reached.get(rank, (0, 0))
        if plan.layout.is_server(rank):
            said += _of_server(rank, way, step)
        else:
            rows = plan.batch_size / workers
            updates = _in_flight(plan)
            if not (plan.layout.servers or plan.strategy.shares_memory):  # what no neighbour had taken in yet
                updates += ceil(max(0.0, samples - way.bases[rank] - way.taken[rank]) / rows)
            said.append(f"at most {_updates(updates)} (about {round(updates * rows)} rows) of rank {rank} lost")
    return said


def _in_flight(plan: Plan) -> int:
    """Return how many updates of a rank may be under way, or half done, at a time."""
    return 2 if isinstance(plan.strategy, ServerStrategy) and plan.strategy.overlap else 1


def _of_server(rank: int, way: WayOn, reached: int) -> list[str]:
    if way.sources[rank] is None:
        return [f"the parameters of rank {rank}, a server, begin again from the seed"]
    version = way.versions.get(rank, -1)
    if version < 0:
        return []  # they lie in the memory of others
    return [f"the parameters of rank {rank}, a server, are {_updates(max(0, reached - version))} older"]


def _updates(count: int) -> str:
    return f"{count} update{'s' * (count != 1)}"
