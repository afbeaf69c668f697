"""Endpoints of ranks in a worker's process: opened by the client's first call, taken by its second, the rank's task."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypedDict

from distributed import Status, Worker

from scaleml.arrays import Array
from scaleml.cluster.leaving import let_ranks_leave
from scaleml.comm import Listener
from scaleml.runtime.commands import Command, CommandQueue

RankKey = tuple[str, int, int]
"""Run, generation, rank: the name of a rank's endpoint in its process."""


@dataclass(frozen=True)
class EndpointRequest:
    """The client's wish for one rank in this process."""

    run: str
    generation: int
    rank: int
    nonce: str
    """Fences: only the task that brings it may take the endpoint."""
    token: bytes
    """The secret that every link of the run begins with."""
    port_range: tuple[int, int] | None
    near: bool
    """Whether all ranks are processes of one user on one host, who need no TLS for Unix sockets of their own."""
    expires: float
    """Seconds after which an unused endpoint closes by itself: its client has vanished."""

    @property
    def key(self) -> RankKey:
        """Name of the endpoint in its process."""
        return self.run, self.generation, self.rank


class OpenEndpoints(TypedDict):
    """What a worker answers."""

    addresses: dict[int, tuple[str, int]]
    """Where its ranks listen, by rank."""
    busy: list[str]
    """The Dask tasks that it is running."""
    is_paused: bool
    """Whether it takes no new task, for its memory is nearly full."""


class Abortable(Protocol):
    """A rank's communicator, as far as it concerns whoever ends the rank."""

    def abort(self, reason: str) -> None:
        """From any thread: end whatever it waits for."""


class Endpoint:
    """How a rank is reached: its listener until the links stand, its commands; whatever ends the rank from outside comes here."""

    def __init__(self, request: EndpointRequest, worker: Worker) -> None:
        self.request: Final = request
        self.commands: Final = CommandQueue()
        self.abort_reason: str | None = None
        self.newest_params: Array | None = None
        """The parameters after the newest epoch, of a run that keeps them."""
        self._group: Abortable | None = None
        self._lock = threading.Lock()
        tls = worker.security.get_listen_args("worker").get("ssl_context") if worker.address.startswith("tls") else None
        self.listener: Final = Listener(
            host_of(worker.address),
            token=request.token,
            run=run_number(request.run),
            generation=request.generation,
            rank=request.rank,
            port_range=request.port_range,
            tls=tls,
            near=request.near or tls is None,
        )

    def attach(self, group: Abortable) -> None:
        """Hand over the group, which an abort must reach from now on."""
        with self._lock:
            self._group = group
            if self.abort_reason is not None:
                group.abort(self.abort_reason)

    def abort(self, reason: str) -> None:
        """End the rank, wherever it waits; from any thread."""
        with self._lock:
            self.abort_reason = self.abort_reason or reason
            group = self._group
        self.listener.abort(reason)
        if group is not None:
            group.abort(reason)
        self.commands.wake()  # last: who is woken looks why


_open: Final[dict[RankKey, Endpoint]] = {}
_taken: Final[dict[RankKey, Endpoint]] = {}
_lock: Final = threading.Lock()


def run_number(run: str) -> int:
    """Return a run's id as the 64-bit number that frames carry."""
    return int(run[:16], 16)


def host_of(address: str) -> str:
    """Return the host by which Dask reaches a worker; loopback for workers inside the client's process."""
    scheme, _, rest = address.partition("://")
    return "127.0.0.1" if scheme == "inproc" else rest.rsplit(":", 1)[0].strip("[]")


def open_endpoints(requests: Sequence[EndpointRequest], dask_worker: Worker) -> OpenEndpoints:
    """Open an endpoint for each rank that the client wants on this worker; runs on the worker, out of band."""
    addresses = {}
    let_ranks_leave(dask_worker, ranks_here)
    for request in requests:
        endpoint = Endpoint(request, dask_worker)
        with _lock:
            _open[request.key] = endpoint
        dask_worker.loop.call_later(request.expires, close_endpoint, request.key)
        addresses[request.rank] = endpoint.listener.address
    busy = [
        str(state.key) for state in dask_worker.state.tasks.values() if state.state in ("executing", "long-running")
    ]
    return {"addresses": addresses, "busy": busy, "is_paused": dask_worker.status == Status.paused}


def take_endpoint(key: RankKey, nonce: str) -> Endpoint | None:
    """Take an open endpoint, once; None if this process has none for that rank: a task from the past stays out."""
    with _lock:
        endpoint = _open.get(key)
        if endpoint is None or endpoint.request.nonce != nonce:
            return None
        _taken[key] = _open.pop(key)
    return endpoint


def release_endpoint(key: RankKey) -> None:
    """Forget an endpoint that was taken: its rank is over."""
    with _lock:
        _taken.pop(key, None)


def ranks_here() -> int:
    """Return how many ranks live in this process."""
    with _lock:
        return len(_taken)


def keys_here(run: str) -> list[RankKey]:
    """Return which ranks of a run live in this process, or are about to."""
    with _lock:
        return [key for key in (*_open, *_taken) if key[0] == run]


def close_endpoint(key: RankKey) -> None:
    """Close an endpoint that nobody took."""
    with _lock:
        endpoint = _open.pop(key, None)
    if endpoint is not None:
        endpoint.listener.close()


def abort_ranks(run: str, reason: str, generation: int | None = None) -> int:
    """Abort all ranks of a run, or of one generation, in this process and close their open endpoints; returns how many there were."""

    def is_meant(key: RankKey) -> bool:
        return key[0] == run and generation in (None, key[1])

    with _lock:
        unused = [key for key in _open if is_meant(key)]
        taken = [endpoint for key, endpoint in _taken.items() if is_meant(key)]
    for key in unused:
        close_endpoint(key)
    for endpoint in taken:
        endpoint.abort(reason)
    return len(unused) + len(taken)


def deliver_command(key: RankKey, command: Command) -> bool:
    """Put a command into a rank's queue; False if the rank is not (or no longer) here."""
    with _lock:
        endpoint = _taken.get(key)
    if endpoint is None:
        return False
    endpoint.commands.put(command)
    return True


def newest_params(key: RankKey) -> Array | None:
    """Return the parameters that a rank kept last; None if there are none, or if it is not here."""
    with _lock:
        endpoint = _taken.get(key)
    return None if endpoint is None else endpoint.newest_params
