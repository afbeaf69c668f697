"""Ready workers: those that a run may use, found to have what it needs before anything is sent there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from distributed import Client

from scaleml.cluster import calls
from scaleml.cluster.calls import WorkerFacts
from scaleml.cluster.embedded import find_client
from scaleml.cluster.host_facts import hosts_of
from scaleml.cluster.placement import Workers, candidates


@dataclass(frozen=True)
class ReadyWorkers:
    """A cluster, and whom of it a run may use.

    Parameters
    ----------
    client : Client
        The cluster.
    is_own : bool
        Whether it is the embedded one.
    facts : mapping
        What the scheduler says of all its workers, by address.
    chosen : list of str
        Whom to use.
    """

    client: Client
    is_own: bool
    facts: Mapping[str, WorkerFacts]
    chosen: list[str]


def ready_workers(client: Client | None, workers: Workers) -> ReadyWorkers:
    """Return the workers that were asked for, ready; the arguments are those of ``train``.

    Raises
    ------
    ValueError
        For workers that are not there.
    StartFailed
        For those that cannot run what they would be sent: see `hosts_of`.
    """
    found, own = find_client(client, workers)
    facts = calls.identity(found)
    chosen = candidates(facts, workers, own)
    hosts_of(found, chosen, facts)
    return ReadyWorkers(found, own, facts, chosen)
