"""Bringing ranks together in two calls: open their places, then send them with everyone's address."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any, Final

from distributed import Client, Future

from scaleml.cluster import calls, config
from scaleml.cluster.endpoint import EndpointRequest, open_places
from scaleml.cluster.errors import StartFailed
from scaleml.cluster.placement import Placement
from scaleml.cluster.rank_spec import RankSpec
from scaleml.cluster.rank_task import rank_main, task_key
from scaleml.cluster.staging.files import Delivered
from scaleml.cluster.staging.placed_data import PlacedData
from scaleml.runtime.plan import Plan

_CALL: Final = 10.0
GRACE: Final = 5.0
"""Seconds that a rank waits for the others beyond the supervisor's patience: which knows better whom to name."""


class Start:
    """The start of one generation of a run's ranks.

    Parameters
    ----------
    client : Client
        The cluster.
    run : str
        The run's id.
    plan : Plan
        The mathematics.
    placement : Placement
        The ranks' workers.
    patience : float
        Seconds for all ranks to enter.
    generation : int
        Which start of the run this is.
    """

    def __init__(
        self, client: Client, run: str, plan: Plan, placement: Placement, patience: float, generation: int = 0
    ) -> None:
        self.client = client
        self.run = run
        self.plan = plan
        self.placement = placement
        self.patience = patience
        self.generation = generation
        self._token = secrets.token_bytes(32)
        self._shards: list[tuple[list[Delivered], list[Delivered]]] = []
        self._nonces = [secrets.token_hex(16) for _ in placement.addresses]

    def bring(self, data: PlacedData) -> None:
        """Bring each training rank its shards and its part of the held-out data, or say where they lie."""
        workers = self.placement.layout.workers
        owned = [self.plan.owned(rank) for rank in range(workers)]
        count = len(self.plan.shard_sizes)
        self._shards = data.shards_for(self.client, self.placement.addresses[:workers], count, owned)

    def open_places(self) -> dict[str, Any]:
        """Open a place for each rank in its worker's process.

        Returns
        -------
        dict
            Worker -> the addresses of its ranks' listeners, and what keeps it busy.

        Raises
        ------
        StartFailed
            When a worker is gone or cannot open one.
        """
        tickets: dict[str, list[EndpointRequest]] = {}
        for rank, address in enumerate(self.placement.addresses):
            ticket = EndpointRequest(
                run=self.run,
                generation=self.generation,
                rank=rank,
                nonce=self._nonces[rank],
                token=self._token,
                port_range=config.port_range(),
                expires=2 * self.patience,
            )
            tickets.setdefault(address, []).append(ticket)
        answers = calls.on_workers(self.client, _CALL, open_places, tickets, workers=list(tickets), on_error="return")
        for address in tickets:
            answer = answers.get(address, "it left the cluster")
            if not isinstance(answer, dict):
                raise StartFailed(f"worker {address} could not open a place for its rank: {answer}")
        return answers

    def send_ranks(
        self,
        answers: dict[str, Any],
        futures: list[Future[Any]],
        former: Sequence[Future[Any]] = (),
    ) -> None:
        """Submit the ranks, each pinned to its worker, and append their futures to ``futures``.

        Where they go on for a ``former`` generation, Dask brings each what it needs of theirs: most of it lies where it is.
        """
        workers = self.placement.layout.workers
        book = {rank: place for answer in answers.values() for rank, place in answer["addresses"].items()}
        for rank, address in enumerate(self.placement.addresses):
            spec = RankSpec(
                run=self.run,
                generation=self.generation,
                rank=rank,
                nonce=self._nonces[rank],
                token=self._token,
                book=tuple(book[r] for r in range(len(book))),
                threads=self.placement.threads,
                comm_timeout=config.seconds("comm.timeout"),
                start_timeout=self.patience + GRACE,
                shared_memory=config.shared_memory(),
                memory_share=config.memory_share(),
            )
            shards, held_out = self._shards[rank] if rank < len(self._shards) else ([], [])
            future = self.client.submit(
                rank_main,
                self.plan,
                spec,
                shards,
                held_out,
                [former[rank if rank < workers else 0], *former[workers:]] if former else [],
                key=task_key(self.run, self.generation, rank),
                workers=[address],
                allow_other_workers=False,
                retries=0,
                resources=(self.placement.resources or None) if rank < self.placement.layout.workers else None,
                pure=False,
                priority=1,
            )
            futures.append(future)
