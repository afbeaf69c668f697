"""Stalled workers of a run: they are given no rank any more, and made to start anew where that can be done."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterable, Mapping
from typing import Final, final

from distributed import Client

from scaleml.cluster import calls
from scaleml.cluster.calls import WorkerFacts
from scaleml.cluster.embedded import is_embedded
from scaleml.cluster.heartbeat import process_states
from scaleml.cluster.host_facts import process_of, start_of
from scaleml.cluster.process_state import kill_stopped

_RESTART: Final = 10.0
"""Seconds for a nanny to kill its worker: it asks that for four of them to end by itself."""

_log = logging.getLogger(__name__)


@final
class StalledWorkers:
    """The starts of workers that were found stalled; what comes at the same address later is another.

    Parameters
    ----------
    client : Client
        The cluster.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._starts: dict[str, str] = {}

    def add(self, addresses: Iterable[str]) -> None:
        """Count workers as gone, and have their nannies start them anew; without one, Dask forgets it, and makes anew what it had."""
        for address in addresses:
            known = process_of(self._client, address)
            start = known[0] if known is not None else ""
            if self._starts.get(address) == start:
                continue
            self._starts[address] = start
            _log.info("worker %s is stalled: this run gives it no rank any more, and asks for its restart", address)
            if not (known is not None and is_embedded(self._client) and kill_stopped(known[1])):
                self._ask_for_restart(address)

    def add_stopped(self, addresses: Iterable[str], workers: Mapping[str, WorkerFacts]) -> list[str]:
        """Count those as gone whose processes are stopped, and return which they are."""
        states = process_states(self._client, list(addresses), workers)
        stopped = [address for address, state in states.items() if state == "stopped"]
        self.add(stopped)
        return stopped

    def among(self, workers: Mapping[str, WorkerFacts]) -> set[str]:
        """Return which of the workers that the scheduler knows now are those."""
        return {
            address
            for address, start in self._starts.items()
            if address in workers and start_of(workers[address]) == start
        }

    def _ask_for_restart(self, address: str) -> None:
        scheduler = self._client.scheduler
        assert scheduler is not None
        restart = scheduler.restart_workers(
            workers=[address],
            timeout=_RESTART,
            wait_for_workers=False,
            on_error="return",
            stimulus_id=f"scaleml-stalled-{secrets.token_hex(4)}",
        )
        calls.without_waiting(self._client, 2 * _RESTART, restart)
