"""The next generation of a run's ranks after a loss: who they are, from where they go on, and what each is told; or that nobody can."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from scaleml.cluster.launcher import Generation
from scaleml.cluster.rank_tasks import Task
from scaleml.cluster.recovery import WayOn
from scaleml.runtime.outcome import Recovered


class NotRecovered(Exception):
    """Nobody can go on."""


@dataclass(frozen=True)
class NextGeneration:
    """The ranks that go on.

    Parameters
    ----------
    generation : Generation
        Who trains now.
    way : WayOn
        From where.
    told : mapping
        What each rank is told of it.
    before : mapping
        The tasks whose outcomes each rank needs.
    """

    generation: Generation
    way: WayOn
    told: Mapping[int, Recovered]
    before: Mapping[int, list[Task]]
