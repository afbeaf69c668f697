"""Launcher: brings the ranks of one generation together in two calls: their endpoints first, then the ranks, with everyone's address."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from distributed import Client, Future

from scaleml.cluster import calls, config
from scaleml.cluster.embedded import is_embedded
from scaleml.cluster.endpoint import EndpointRequest, OpenEndpoints, open_endpoints
from scaleml.cluster.errors import StartFailed
from scaleml.cluster.placement import Placement
from scaleml.cluster.rank_spec import RankSpec
from scaleml.cluster.rank_task import rank_main, task_key
from scaleml.cluster.staging.files import Delivered
from scaleml.cluster.staging.placed_data import PlacedData
from scaleml.cluster.submission import submit
from scaleml.cluster.user_modules import carried_modules
from scaleml.runtime.outcome import Outcome
from scaleml.runtime.plan import Plan

GRACE: Final = 5.0
"""Seconds that a rank waits for the others beyond the supervisor's patience: which knows better whom to name."""

RankData = tuple[Sequence[object], Sequence[object]]
"""A rank's shards and held-out shards: of files that its worker can read, or futures of shards that Dask brings."""

_log = logging.getLogger(__name__)


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
    """

    number: int
    plan: Plan
    placement: Placement


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
    patience : float
        Seconds for all ranks to enter.
    """

    def __init__(self, client: Client, run: str, generation: Generation, patience: float) -> None:
        self.client = client
        self.run = run
        self.plan = generation.plan
        self.placement = generation.placement
        self.generation = generation.number
        self.patience = patience
        self._token = secrets.token_bytes(32)
        self._nonces = [secrets.token_hex(16) for _ in self.placement.addresses]
        self._shards: list[tuple[list[Delivered], list[Delivered]]] = []

    def bring(self, data: PlacedData) -> None:
        """Bring each training rank its shards and its part of the held-out data, or say where they lie."""
        workers = self.placement.layout.workers
        owned = [self.plan.owned(rank) for rank in range(workers)]
        count = len(self.plan.shard_sizes)
        self._shards = data.shards_for(self.client, self.placement.addresses[:workers], count, owned)

    def open_endpoints(self) -> dict[str, OpenEndpoints]:
        """Open an endpoint for each rank in its worker's process, and return their addresses by worker.

        Raises
        ------
        StartFailed
            When a worker is gone or cannot open one.
        """
        requests: dict[str, list[EndpointRequest]] = {}
        for rank, address in enumerate(self.placement.addresses):
            request = EndpointRequest(
                run=self.run,
                generation=self.generation,
                rank=rank,
                nonce=self._nonces[rank],
                token=self._token,
                port_range=config.port_range(),
                near=is_embedded(self.client),
                expires=2 * self.patience,
            )
            requests.setdefault(address, []).append(request)
        # Each worker is asked for itself: by what address the scheduler knows it, it may not know.
        answers = calls.ask_each(
            self.client,
            calls.CALL_TIMEOUT,
            lambda address: calls.on_worker(self.client, address, open_endpoints, requests[address]),
            list(requests),
        )
        opened: dict[str, OpenEndpoints] = {}
        for address in requests:
            answer = answers.get(address)
            if answer is None or isinstance(answer, BaseException):
                why = answer or "it left the cluster"
                raise StartFailed(f"worker {address} could not open an endpoint for its rank: {why}")
            opened[address] = answer
        _log.debug("run %s.%d: endpoints %s", self.run[:8], self.generation, opened)
        return opened

    def submit(
        self,
        endpoints: dict[str, OpenEndpoints],
        futures: list[Future[Outcome | None]],
        former: Sequence[Future[Outcome | None]] = (),
    ) -> None:
        """Submit the ranks, each pinned to its worker, and append their futures to ``futures``.

        Where they go on for a ``former`` generation, Dask brings each what it needs of theirs: most of it lies where it is.

        Raises
        ------
        StartFailed
            When a worker cannot import what the plan is made of.
        """
        workers = self.placement.layout.workers
        carried = carried_modules(self.client, self.placement.workers, self.plan)
        book = {rank: address for opened in endpoints.values() for rank, address in opened["addresses"].items()}
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
            future = submit(
                self.client,
                rank_main,
                self.plan,
                spec,
                shards,
                held_out,
                [former[rank if rank < workers else 0], *former[workers:]] if former else [],
                carried=carried,
                key=task_key(self.run, self.generation, rank),
                workers=[address],
                allow_other_workers=False,
                retries=0,
                resources=(self.placement.resources or None) if rank < workers else None,
                priority=1,
            )
            futures.append(future)
