"""No HTTP: preloaded into the embedded cluster's own processes, whose pages would be open to every user of the machine."""

from __future__ import annotations

from distributed import Scheduler, Worker


async def dask_setup(server: Scheduler | Worker) -> None:
    """Close the web server that Dask starts in each scheduler and worker; called by Dask before others hear of them."""
    server.http_server.stop()
    await server.http_server.close_all_connections()
    server.services.pop("dashboard", None)
