"""Gathering: how the ranks of one start find each other: an endpoint is opened for each in its worker, then each is told of all."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterable, Mapping
from typing import Final, final

from distributed import Client

from scaleml.cluster import calls, config
from scaleml.cluster.embedded import is_embedded
from scaleml.cluster.endpoint import EndpointRequest, OpenEndpoints, abort_ranks, open_endpoints
from scaleml.cluster.errors import StartFailed
from scaleml.cluster.placement import Placement
from scaleml.cluster.rank_spec import RankSpec

GRACE: Final = 5.0
"""Seconds that a rank waits for the others beyond the supervisor's patience: which knows better whom to name."""

_log = logging.getLogger(__name__)


@final
class Gathering:
    """What the ranks of one start share: the token of their links, who may take which endpoint, where each listens.

    Parameters
    ----------
    client : Client
        The cluster.
    run : str
        The run's id.
    generation : int
        Which of its starts.
    placement : Placement
        The ranks' workers.
    patience : float
        Seconds for all ranks to enter.
    """

    def __init__(self, client: Client, run: str, generation: int, placement: Placement, patience: float) -> None:
        self._client = client
        self._run = run
        self._generation = generation
        self._placement = placement
        self._patience = patience
        self._token = secrets.token_bytes(32)
        self._nonces = [secrets.token_hex(16) for _ in placement.addresses]

    def open_endpoints(self) -> dict[str, OpenEndpoints]:
        """Open an endpoint for each rank in its worker's process, and return their addresses by worker.

        Raises
        ------
        StartFailed
            When a worker is gone or cannot open one.
        """
        requests: dict[str, list[EndpointRequest]] = {}
        for rank, address in enumerate(self._placement.addresses):
            request = EndpointRequest(
                run=self._run,
                generation=self._generation,
                rank=rank,
                nonce=self._nonces[rank],
                token=self._token,
                port_range=config.port_range(),
                near=is_embedded(self._client),
                expires=2 * self._patience,
            )
            requests.setdefault(address, []).append(request)
        # Each worker is asked for itself: by what address the scheduler knows it, it may not know.
        answers = calls.ask_each(
            self._client,
            calls.CALL_TIMEOUT,
            lambda address: calls.on_worker(self._client, address, open_endpoints, requests[address]),
            list(requests),
        )
        opened: dict[str, OpenEndpoints] = {}
        for address in requests:
            answer = answers.get(address)
            if answer is None or isinstance(answer, BaseException):
                self._close(requests)
                why = answer or "it left the cluster"
                raise StartFailed(f"worker {address} could not open an endpoint for its rank: {why}")
            opened[address] = answer
        _log.debug("run %s.%d: endpoints %s", self._run[:8], self._generation, opened)
        return opened

    def _close(self, workers: Iterable[str]) -> None:
        """Have the endpoints closed that were opened: after a loss the others try again, as another generation."""
        why = "another rank could not be started"
        for address in workers:  # each for itself: the one that is gone must not hold up the others
            calls.tell_workers(
                self._client, calls.CALL_TIMEOUT, abort_ranks, self._run, why, self._generation, workers=[address]
            )

    def specs(self, endpoints: Mapping[str, OpenEndpoints]) -> list[RankSpec]:
        """Return what each rank is told."""
        book = {rank: address for opened in endpoints.values() for rank, address in opened["addresses"].items()}
        return [
            RankSpec(
                run=self._run,
                generation=self._generation,
                rank=rank,
                nonce=nonce,
                token=self._token,
                book=tuple(book[r] for r in range(len(book))),
                threads=self._placement.threads,
                comm_timeout=config.seconds("comm.timeout"),
                start_timeout=self._patience + GRACE,
                shared_memory=config.shared_memory(),
                memory_share=config.memory_share(),
                client_timeout=config.seconds("client-timeout"),
            )
            for rank, nonce in enumerate(self._nonces)
        ]
