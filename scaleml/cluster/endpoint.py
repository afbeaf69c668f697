"""A worker process's side of a start: places for ranks, opened by the client's first call, entered by its second."""

from __future__ import annotations

import os
import pathlib
import platform
import sys
import threading
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from dask.system import CPU_COUNT

from scaleml.comm import Listener
from scaleml.runtime.commands import Command, CommandQueue


@dataclass(frozen=True)
class EndpointRequest:
    """The client's wish for one rank in this process."""

    run: str
    generation: int
    rank: int
    nonce: str
    token: bytes
    port_range: tuple[int, int] | None
    expires: float
    """Seconds after which an unused place closes by itself: its client has vanished."""

    @property
    def key(self) -> tuple[str, int, int]:
        """Name of the place in its process."""
        return self.run, self.generation, self.rank


class Endpoint:
    """A rank's place: its listener until the links stand, and its command_queue; whatever ends the rank from outside comes here."""

    def __init__(self, ticket: EndpointRequest, worker: Any) -> None:
        self.ticket: Final = ticket
        self.mailbox: Final = CommandQueue()
        self.reason: str | None = None
        self.kept: Any = None
        """The parameters after the newest epoch, of a run that keeps them."""
        self._group: Any = None
        self._lock = threading.Lock()
        tls = worker.security.get_listen_args("worker").get("ssl_context") if worker.address.startswith("tls") else None
        self.listener: Final = Listener(
            host_of(worker.address),
            token=ticket.token,
            run=run_number(ticket.run),
            generation=ticket.generation,
            rank=ticket.rank,
            port_range=ticket.port_range,
            tls=tls,
        )

    def attach(self, group: Any) -> None:
        """Hand over the group, which an abort must reach from now on."""
        with self._lock:
            self._group = group
            if self.reason is not None:
                group.abort(self.reason)

    def abort(self, reason: str) -> None:
        """End the rank, wherever it waits; from any thread."""
        with self._lock:
            self.reason = self.reason or reason
            group = self._group
        self.listener.abort(reason)
        self.mailbox.wake()
        if group is not None:
            group.abort(reason)


_places: dict[tuple[str, int, int], Endpoint] = {}
_entered: dict[tuple[str, int, int], Endpoint] = {}
_lock: Final = threading.Lock()


def run_number(run: str) -> int:
    """Return a run's id as the 64-bit number that frames carry."""
    return int(run[:16], 16)


def host_of(address: str) -> str:
    """Return the host by which Dask reaches a worker; loopback for workers inside the client's process."""
    scheme, _, rest = address.partition("://")
    return "127.0.0.1" if scheme == "inproc" else rest.rsplit(":", 1)[0].strip("[]")


def host_facts() -> dict[str, Any]:
    """Return what tells hosts and installations apart."""
    boot = pathlib.Path("/proc/sys/kernel/random/boot_id")
    return {
        "boot": boot.read_text().strip() if boot.exists() else platform.node(),
        "pid": os.getpid(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scaleml": sys.modules["scaleml"].__version__,
        "cores": int(CPU_COUNT),
    }


def open_places(tickets: dict[str, list[EndpointRequest]], dask_worker: Any) -> dict[str, Any]:
    """Open a place for each rank that the client wants on this worker; runs on the worker, out of band.

    Returns
    -------
    dict
        The ``addresses`` of the listeners, by rank, and the tasks that keep the worker ``busy``.
    """
    addresses = {}
    for ticket in tickets[dask_worker.address]:
        lobby = Endpoint(ticket, dask_worker)
        with _lock:
            _places[ticket.key] = lobby
        dask_worker.loop.call_later(ticket.expires, close_place, ticket.key)
        addresses[ticket.rank] = lobby.listener.address
    busy = [
        str(state.key) for state in dask_worker.state.tasks.values() if state.state in ("executing", "long-running")
    ]
    return {"addresses": addresses, "busy": busy}


def enter(key: tuple[str, int, int], nonce: str) -> Endpoint | None:
    """Take a place, once; None if this process has none for that rank: a task from the past stays out."""
    with _lock:
        lobby = _places.get(key)
        if lobby is None or lobby.ticket.nonce != nonce:
            return None
        _entered[key] = _places.pop(key)
    return lobby


def leave(key: tuple[str, int, int]) -> None:
    """Give up a place that was taken."""
    with _lock:
        _entered.pop(key, None)


def close_place(key: tuple[str, int, int]) -> None:
    """Close a place that nobody took."""
    with _lock:
        lobby = _places.pop(key, None)
    if lobby is not None:
        lobby.listener.close()


def end_ranks(run: str, reason: str) -> int:
    """Abort all ranks of a run in this process and close its open places; returns how many there were."""
    with _lock:
        unused = [key for key in _places if key[0] == run]
        entered = [lobby for key, lobby in _entered.items() if key[0] == run]
    for key in unused:
        close_place(key)
    for lobby in entered:
        lobby.abort(reason)
    return len(unused) + len(entered)


def deliver(key: tuple[str, int, int], command: Command) -> bool:
    """Leave a command in a rank's command_queue; False if the rank is not (or no longer) here."""
    with _lock:
        lobby = _entered.get(key)
    if lobby is None:
        return False
    lobby.mailbox.put(command)
    return True


def peek(key: tuple[str, int, int]) -> Any:
    """Return the parameters that a rank kept last; None if there are none, or if it is not here."""
    with _lock:
        lobby = _entered.get(key)
    return None if lobby is None else lobby.kept
