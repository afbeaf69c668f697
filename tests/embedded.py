"""The embedded cluster for tests: kept from one module to the next, for eleven processes take their time to start."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import psutil
import pytest
from distributed import Client

from scaleml.cluster import embedded as clusters


def embedded(workers: int) -> Client:
    """Return the client of an embedded cluster with exactly so many workers, one BLAS thread each."""
    own = clusters._own.cluster
    if own is not None and len(own.cluster.worker_spec) != workers:
        clusters.close_embedded()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("OPENBLAS_NUM_THREADS", "1")
        client, is_own = clusters.find_client(None, workers)
    assert is_own
    return client


def dask_processes() -> Iterator[psutil.Process]:
    """The embedded cluster's processes; other tests' clusters may have left Python's resource tracker."""
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):
            command = child.cmdline()
            if "spec" in command:
                yield child
            if "spec" in command or "scaleml.cluster.fork_server" in command:
                yield from child.children(recursive=True)


def listening(processes: Iterable[psutil.Process]) -> list[tuple[str, int]]:
    """The addresses and ports at which these processes listen."""
    connections = [connection for process in processes for connection in process.net_connections()]
    return [tuple(one.laddr) for one in connections if one.status == psutil.CONN_LISTEN]
