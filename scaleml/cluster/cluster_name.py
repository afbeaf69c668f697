"""Cluster names: what tells the Dask cluster that a run would use from others, without starting one."""

from __future__ import annotations

from distributed import Client, get_client

from scaleml.cluster.current_client import has_client


def cluster_name(client: Client | None) -> str:
    """Return the address of the scheduler; ``"embedded"`` where there is no client, given or current.

    >>> cluster_name(None)
    'embedded'
    """
    if client is None and not has_client():
        return "embedded"
    found = get_client() if client is None else client
    return str(getattr(found.scheduler, "address", id(found)))
