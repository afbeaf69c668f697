"""Heartbeat check: what Dask has heard of the workers of silent ranks, and what others on their hosts see of their processes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Mapping, Sequence
from typing import Final

from distributed import Client

from scaleml.cluster import calls
from scaleml.cluster.calls import WorkerFacts
from scaleml.cluster.endpoint import host_of
from scaleml.cluster.events import Examined
from scaleml.cluster.host_facts import is_known, process_of, start_of
from scaleml.cluster.process_state import ProcessState, state_of

_ASKING: Final = 2.0
"""Seconds for a nanny, or a neighbour, to answer."""
_NEIGHBOURS: Final = 2


def examine(client: Client, suspects: Mapping[int, str], step: int = 0) -> list[Examined]:
    """Return what is known of the workers of these ranks, at ``suspects``, by rank, when ranks have come to a ``step``.

    Nothing where the client or the scheduler does not answer: then it is not the ranks that are silent.
    """
    with contextlib.suppress(Exception):
        workers = calls.identity(client)
        states = process_states(client, list(dict.fromkeys(suspects.values())), workers)
        return [
            Examined(rank, workers[address]["last_seen"] if address in workers else None, states[address], step)
            for rank, address in suspects.items()
        ]
    return []


def process_states(
    client: Client, addresses: Sequence[str], workers: Mapping[str, WorkerFacts]
) -> dict[str, ProcessState]:
    """Return what the processes of workers are doing: seen from here, or by their nannies, or by other workers of their hosts.

    Parameters
    ----------
    workers : mapping
        What the scheduler knows of all.
    """
    names: dict[str, str] = {}
    for address in addresses:
        known = process_of(client, address)
        if known is not None and (address not in workers or known[0] == start_of(workers[address])):
            names[address] = known[1]
    states: dict[str, ProcessState] = dict.fromkeys(addresses, "unknown")
    states |= {address: state_of(name) for address, name in names.items()}
    distant = [address for address in names if states[address] == "unknown" and address in workers]
    if distant:
        others = [address for address in workers if address not in addresses and is_known(client, address)]

        async def ask(address: str) -> ProcessState:
            near = [other for other in others if host_of(other) == host_of(address)][:_NEIGHBOURS]
            questions: list[Awaitable[Mapping[str, ProcessState]]] = [
                client._run(state_of, names[address], workers=[other]) for other in near
            ]
            if workers[address].get("nanny"):
                questions.append(client._run(state_of, names[address], workers=[address], nanny=True))
            return await _first_known(questions)

        answers = calls.ask_each(client, 2 * _ASKING, ask, distant)
        states |= {address: state for address, state in answers.items() if isinstance(state, str)}
    return states


async def _first_known(questions: Sequence[Awaitable[Mapping[str, ProcessState]]]) -> ProcessState:
    for answer in asyncio.as_completed([asyncio.wait_for(question, _ASKING) for question in questions]):
        with contextlib.suppress(Exception):
            for state in (await answer).values():
                if state != "unknown":
                    return state
    return "unknown"


def why_client_lost(client: Client) -> str:
    """Return what to say of a client that does not run any more."""
    scheduler = client.scheduler.address if client.scheduler else "unknown"
    return (
        f"the Dask client is {client.status}: it was closed, or the cluster at {scheduler} is gone; the ranks end by themselves. "
        "Start the run again with a client that is connected"
    )
