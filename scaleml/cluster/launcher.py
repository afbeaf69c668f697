"""Launcher: starts the ranks of one generation of a run: endpoints and data first, then the ranks, with everyone's address."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from distributed import Client, Future

from scaleml.cluster import config
from scaleml.cluster.endpoint import OpenEndpoints
from scaleml.cluster.gathering import Gathering
from scaleml.cluster.placement import Placement
from scaleml.cluster.rank_task import rank_main
from scaleml.cluster.staging.files import Delivered
from scaleml.cluster.staging.placed_data import PlacedData
from scaleml.cluster.submission import submit
from scaleml.cluster.user_modules import carried_modules
from scaleml.runtime.outcome import Outcome, Recovered
from scaleml.runtime.plan import Plan
from scaleml.runtime.rank_change import RankChange

_log = logging.getLogger(__name__)
_SLOW_DISK: Final = 100e6  # bytes a second that any disk can read

RankData = tuple[Sequence[object], Sequence[object]]
"""A rank's shards and held-out shards: of files that its worker can read, or futures of shards that Dask brings."""


@dataclass(frozen=True)
class Generation:
    """One set of ranks of a run. Others take over where a switch of strategy changes the ranks' roles.

    Parameters
    ----------
    number : int
        0, 1, ...
    plan : Plan
        The mathematics.
    placement : Placement
        The ranks' workers.
    planned : int
        The generation that the plan was made for: this one, or what this one goes on for after a loss.
    change : RankChange or None
        Who goes on as which rank, where there is another number of them than before.
    """

    number: int
    plan: Plan
    placement: Placement
    planned: int = 0
    change: RankChange | None = None

    @property
    def training(self) -> tuple[str, ...]:
        """The workers of the ranks that train."""
        return self.placement.addresses[: self.placement.layout.workers]


class Launcher:
    """The start of one generation of a run's ranks.

    Parameters
    ----------
    client : Client
        The cluster.
    run : str
        The run's id.
    generation : Generation
        Who is to train.
    data : PlacedData
        The shards.

    Attributes
    ----------
    patience : float
        Seconds for all ranks to enter.
    """

    def __init__(self, client: Client, run: str, generation: Generation, data: PlacedData) -> None:
        self.client = client
        self.run = run
        self.plan = generation.plan
        self.placement = generation.placement
        self._change = generation.change
        self._data = data
        # Ranks read their data before they enter: a slow disk is no fault.
        self.patience = patience = config.seconds("start-timeout") + data.nbytes / _SLOW_DISK
        self._gathering = Gathering(client, run, generation.number, generation.placement, patience)
        self._shards: list[tuple[list[Delivered], list[Delivered]]] = []
        self._carried: Collection[str] = ()

    def bring(self) -> None:
        """Bring each training rank its shards and its part of the held-out data, or say where they lie.

        Raises
        ------
        StartFailed
            When a worker cannot import what the plan is made of.
        """
        training = self.placement.addresses[: self.placement.layout.workers]
        count = len(self.plan.shard_sizes)
        if self.plan.recovered:  # what went with a lost worker is made again
            self._data.bring(self.client, training, count, self.plan.opened)
        self._shards = self._data.shards_for(self.client, training, count, self.plan.opened)
        self._carried = carried_modules(self.client, self.placement.workers, self.plan)

    def open_endpoints(self) -> dict[str, OpenEndpoints]:
        """Open an endpoint for each rank in its worker's process, and return their addresses by worker.

        Raises
        ------
        StartFailed
            When a worker is gone or cannot open one.
        """
        return self._gathering.open_endpoints()

    def submit(
        self,
        endpoints: dict[str, OpenEndpoints],
        futures: list[Future[Outcome | None]],
        before: Mapping[int, Sequence[Future[Outcome | None]]],
        recovered: Mapping[int, Recovered],
    ) -> None:
        """Submit the ranks, each pinned to its worker, and append their futures to ``futures``.

        Parameters
        ----------
        before : mapping
            The outcomes of an earlier generation that a rank goes on from: Dask brings it those; most of it lies where it is.
        recovered : mapping
            What ranks are told that go on after a loss.
        """
        workers = self.placement.layout.workers
        for rank, spec in enumerate(self._gathering.specs(endpoints)):
            spec = replace(spec, recovered=recovered.get(rank), change=self._change)
            shards, held_out = self._shards[rank] if rank < len(self._shards) else ([], [])
            future = submit(
                self.client,
                rank_main,
                self.plan,
                spec,
                shards,
                held_out,
                list(before.get(rank, ())),
                carried=self._carried,
                key=spec.task,
                workers=[self.placement.addresses[rank]],
                allow_other_workers=False,
                retries=0,
                resources=(self.placement.resources or None) if rank < workers else None,
                priority=1,
            )
            futures.append(future)
        ranks = ", ".join(f"{rank} on {address}" for rank, address in enumerate(self.placement.addresses))
        _log.info("run %s: placed the ranks of %r: %s", self.run[:8], self.plan.strategy, ranks)


def busy_in(endpoints: Mapping[str, OpenEndpoints]) -> dict[str, list[str]]:
    """Return what else each worker is running."""
    return {address: opened["busy"] for address, opened in endpoints.items()}


def paused_in(endpoints: Mapping[str, OpenEndpoints]) -> set[str]:
    """Return the workers that take no tasks now."""
    return {address for address, opened in endpoints.items() if opened["is_paused"]}
