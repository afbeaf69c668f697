"""Embedded cluster: a Dask cluster of our own where the user has none, made once and closed with this process."""

from __future__ import annotations

import atexit
import contextlib
import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Collection
from numbers import Integral
from typing import Final

import dask
import psutil
from dask.system import CPU_COUNT
from distributed import Client
from distributed.deploy.spec import SpecCluster
from distributed.security import Security

from scaleml.clock import WALL
from scaleml.cluster import calls, follow_parent, handshake_limit, no_http
from scaleml.cluster.certificate import security_settings, write_certificate
from scaleml.cluster.current_client import check_client, current_client
from scaleml.cluster.embedded_process import START_TIMEOUT, EmbeddedProcess, Spec
from scaleml.cluster.errors import StartFailed
from scaleml.cluster.forked import ForkServer
from scaleml.cluster.nanny_cluster import NannyCluster
from scaleml.owned_files import OwnedFolder

_LOOK: Final = 0.5
"""Seconds between two looks whether a process has ended that is waited for."""
_A_CORE: Final = 32
_WORKER_BYTES: Final = 150 * 2**20
"""A worker's process as such, with its nanny's."""

_log = logging.getLogger(__name__)


class _Embedded:
    """The embedded cluster and its client."""

    def __init__(self, workers: int) -> None:
        self.pid = os.getpid()
        self.folder = OwnedFolder("cluster")
        name = str(self.folder.path)
        certificate = self.folder.path / "certificate.pem"
        write_certificate(certificate)
        security = security_settings(certificate)
        follow, limit, no_pages = follow_parent.__name__, handshake_limit.__name__, no_http.__name__
        scheduler: Spec = {
            "cls": "distributed.Scheduler",
            "opts": {
                "host": "127.0.0.1",
                "port": 0,
                "dashboard": False,
                "dashboard_address": "127.0.0.1:0",
                "protocol": "tls",
                "security": security,
                "preload": [follow, limit, no_pages],
                "scheduler_file": f"{name}/scheduler.json",
            },
        }
        worker: Spec = {
            "cls": "distributed.Nanny",
            "opts": {
                "host": "127.0.0.1",
                "nthreads": 1,
                "memory_limit": 0,
                "local_directory": name,
                "security": security,
                **_preloads(limit, no_pages),
                "preload_nanny": [follow, limit],
            },
        }
        # Elsewhere system libraries do not survive a fork.
        fork_server = ForkServer(self.folder.path) if sys.platform == "linux" else None
        options = {"folder": name, "fork_server": fork_server}
        a_worker = {"cls": EmbeddedProcess, "options": {**options, "spec": worker}}
        self.cluster = NannyCluster(
            scheduler={"cls": EmbeddedProcess, "options": {**options, "spec": scheduler}},
            worker=a_worker,
            workers=dict.fromkeys(range(workers), a_worker),
            fork_server=fork_server,
            name=f"scaleml-{os.getpid()}",
            security=Security(**security),
            silence_logs=40,
        )
        self.client = Client(self.cluster, set_as_default=False)
        try:
            self.await_workers(workers)
        except BaseException:
            self.close()
            raise
        _log.info("started the embedded cluster: %d workers, logs in %s", workers, name)

    @property
    def alive(self) -> bool:
        """Whether this process made it and it still runs."""
        return self.pid == os.getpid() and self.client.status == "running"

    def await_workers(self, workers: int) -> None:
        """Have at least this many workers, however long it takes as long as they come."""
        if len(self.cluster.worker_spec) < workers:
            self.cluster.scale(workers)
        self.cluster.sync(self.cluster.reopen)
        for count in range(1, workers + 1):
            deadline = WALL.now() + START_TIMEOUT
            while not self._has(count):
                self.cluster.check_processes(self.folder.path)
                if WALL.now() > deadline:
                    raise StartFailed(
                        f"the embedded cluster has {count - 1} of {workers} workers, and no other came within {START_TIMEOUT:g} s: "
                        f"each is a process of its own, and this machine has {embedded_size()} cores. Ask for fewer workers, or pass "
                        "the client of a larger cluster"
                    )

    def _has(self, workers: int) -> bool:
        """Whether so many workers are there, or come within a moment."""
        with contextlib.suppress(TimeoutError):
            self.client.wait_for_workers(workers, timeout=_LOOK)
            return True
        return False

    def close(self) -> None:
        """Close the client and end all processes."""
        if self.pid != os.getpid():
            return  # a fork of the process that owns it
        with contextlib.suppress(Exception):
            self.client.close(timeout=2)
        with contextlib.suppress(Exception):
            self.cluster.close(timeout=5)
        self.folder.close()


def _preloads(*first: str) -> dict[str, object]:
    """Return what a worker preloads: these modules, then what the user's configuration says."""
    more, arguments = (dask.config.get(f"distributed.worker.preload{what}") for what in ("", "-argv"))
    # One list is for all of them; of several, each has its own.
    own: list[object] = [[] for _ in first] if arguments and not isinstance(arguments[0], str) else []
    return {"preload": [*first, *([more] if isinstance(more, str) else more)], "preload_argv": [*own, *arguments]}


class _Own:
    """The embedded cluster of this process, if it has one."""

    lock = threading.Lock()
    cluster: _Embedded | None = None
    parents: _Embedded | None = None
    """That of the process that this one was forked from: kept, for what is collected is closed."""


_own: Final = _Own()


def find_client(client: Client | None, workers: object = None) -> tuple[Client, bool]:
    """Return the client to use and whether it is that of the embedded cluster.

    Parameters
    ----------
    client : Client or None
        None: the current Dask client if there is one, else the embedded cluster's.
    workers : int or anything else
        How many workers the embedded cluster needs at least, where a number is known.

    Raises
    ------
    TypeError, ValueError
        For something that is no client, an asynchronous or a closed one.
    StartFailed
        When the embedded cluster does not come up.
    """
    check_client(client)
    if client is None:
        client = current_client()
        if client is None:
            return _own_client(int(workers) if isinstance(workers, int | Integral) else 0), True
        check_client(client)
    return client, is_embedded(client)


def is_embedded(client: Client) -> bool:
    """Whether this is the embedded cluster's client: all of its processes are this user's, on this host."""
    return _own.cluster is not None and client is _own.cluster.client


def reopen(client: Client, names: Collection[str]) -> None:
    """Have nannies start again that have ended, or are stopped and not those of these workers; returns at once.

    Does nothing for another cluster's client.
    """
    own = _own.cluster
    if own is not None and client is own.client and own.alive:
        calls.without_waiting(client, START_TIMEOUT, own.cluster.replace_stopped(names))


def embedded_size() -> int:
    """Return how many workers the embedded cluster has by default: one a core."""
    return int(CPU_COUNT)


def close() -> None:
    """Close the embedded cluster, if there is one: its worker processes end, and the next run starts others.

    It would also close with this process. A cluster or client of yours is left alone; so is one that no longer runs. Stop runs
    that still live there first: they would fail with their workers.

    Examples
    --------
    >>> import scaleml
    >>> scaleml.close()  # nothing was started yet, so nothing happens
    """
    close_embedded()


def close_embedded() -> None:
    """Close the embedded cluster, if there is one; the next run starts another."""
    with _own.lock:
        cluster, _own.cluster = _own.cluster, None
    if cluster is not None:
        cluster.close()
        _log.info("closed the embedded cluster")


def _close_at_exit() -> None:
    """Close the embedded cluster with this process; Ctrl-C has nothing left to end, and would only cut this short."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    close_embedded()


def _leave_to_parent() -> None:
    """Have a child that was forked off know nothing of its parent's cluster: neither to use it nor, at its exit, to end it."""
    _own.lock = threading.Lock()  # another thread of the parent may have held it
    if _own.cluster is not None:
        SpecCluster._instances.discard(_own.cluster.cluster)
        _own.parents, _own.cluster = _own.cluster, None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)


def _check_room(more: int, workers: int) -> None:
    """Raise ValueError where so many `more` processes would only bring this machine to a stop."""
    cores, free = embedded_size(), psutil.virtual_memory().available
    if more > 0 and (workers > _A_CORE * cores or more * _WORKER_BYTES > max(free, cores * _WORKER_BYTES)):
        raise ValueError(
            f"workers={workers}: each would be a process of about {_WORKER_BYTES >> 20} MB on this machine, which has {cores} "
            f"core{'s' * (cores != 1)} and {free / 2**30:.1f} GB of free memory; at most {_A_CORE} a core are started. Ask for "
            "fewer, or pass the client of a larger cluster"
        )


def _own_client(workers: int) -> Client:
    if multiprocessing.parent_process() is not None:
        raise StartFailed(
            "no Dask cluster is started inside a child process (joblib, multiprocessing): have joblib run the jobs on the "
            "cluster (joblib.parallel_config('dask')) or as threads ('threading'), leave an estimator's strategy at 'auto', "
            "or connect to a cluster that runs, Client(address), and pass its client"
        )
    workers = max(workers, embedded_size())
    with _own.lock:
        if _own.cluster is not None and not _own.cluster.alive:
            _own.cluster.close()
            _own.cluster = None
        _check_room(workers - (0 if _own.cluster is None else len(_own.cluster.cluster.worker_spec)), workers)
        if _own.cluster is None:
            _own.cluster = _Embedded(workers)
            atexit.register(_close_at_exit)
        else:
            _own.cluster.await_workers(workers)
        return _own.cluster.client
