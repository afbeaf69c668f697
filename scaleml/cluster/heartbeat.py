"""Heartbeat check: whether a rank that others wait for, and the cluster itself, still lives, as far as Dask has heard."""

from __future__ import annotations

from collections.abc import Container, Sequence

from distributed import Client

from scaleml.cluster import calls, config
from scaleml.cluster.events import Silent, Stalled


def silent_rank(client: Client, addresses: Sequence[str], ended: Container[int], stall: Stalled) -> Silent | None:
    """Return the rank that a stalled one waits for, if Dask has not heard of its worker for the timeout either.

    Parameters
    ----------
    addresses : sequence of str
        Of the ranks' workers.
    ended : container of int
        Ranks that came to their end.
    stall : Stalled
        Who waits for whom: -1 for anybody, as servers do.
    """
    suspects = [stall.peer] if stall.peer >= 0 else [rank for rank in range(len(addresses)) if rank not in ended]
    workers = calls.identity(client)
    limit = config.seconds("comm.timeout")
    # All stamped by the scheduler: the worker heard last is its "now", whatever this machine's clock says.
    newest = max((facts["last_seen"] for facts in workers.values()), default=0.0)
    for rank in suspects:
        facts = workers.get(addresses[rank])
        silent = newest - facts["last_seen"] if facts else limit + 1
        if silent > limit and rank != stall.rank:
            return Silent(rank, stall, silent)
    return None


def why_client_lost(client: Client) -> str:
    """Return what to say of a client that does not run any more."""
    scheduler = client.scheduler.address if client.scheduler else "unknown"
    return (
        f"the Dask client is {client.status}: it was closed, or the cluster at {scheduler} is gone; the ranks end by themselves. "
        "Start the run again with a client that is connected"
    )
