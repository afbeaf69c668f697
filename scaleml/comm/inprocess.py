"""In-process communicators: ranks that are threads of this process, for tests, and for strategies without a cluster."""

from __future__ import annotations

import secrets
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

from scaleml.comm.communicator import OnStall
from scaleml.comm.errors import root_cause
from scaleml.comm.transport.hosts import build
from scaleml.comm.transport.socket_communicator import SocketCommunicator

T = TypeVar("T")

Contexts = tuple[ssl.SSLContext, ssl.SSLContext]
"""The server's side and the client's side."""


def groups(
    n: int,
    *,
    shared_memory: bool = True,
    tls: Contexts | None = None,
    timeout: float = 20.0,
    on_stall: OnStall | None = None,
    scratch: str | None = None,
    run: int | None = None,
    generation: int = 0,
) -> list[SocketCommunicator]:
    """Return `n` groups that are linked to each other; rank r is for the use of one thread.

    As those of one host, by Unix sockets and shared memory; without `shared_memory` by TCP sockets.

    Examples
    --------
    >>> pair = groups(2)
    >>> pair[0].send(b"hello", dest=1)
    >>> pair[1].recv().payload
    b'hello'
    >>> for group in pair:
    ...     group.close()
    """
    run = secrets.randbits(63) if run is None else run
    ends: list[list[list[socket.socket | None]]] = [[[None] * n for _ in range(2)] for _ in range(n)]
    for low in range(n):
        for high in range(low + 1, n):
            for channel in range(2):
                ends[low][channel][high], ends[high][channel][low] = _pair(tls, shared_memory)

    def make(rank: int) -> SocketCommunicator:
        return build(ends[rank], rank, n, run, generation, timeout, on_stall, scratch, shared_memory)

    return _on_threads(n, make, lambda rank: None)


def run(
    n: int,
    function: Callable[..., T],
    *args: object,
    shared_memory: bool = True,
    tls: Contexts | None = None,
    timeout: float = 20.0,
    on_stall: OnStall | None = None,
    scratch: str | None = None,
) -> list[T]:
    """Call ``function(group, *args)`` on `n` ranks, each a thread, and return what they return.

    Raises
    ------
    BaseException
        The first one that was raised in a rank and is not just the echo of another rank's end. The others are aborted.
    """
    made = groups(n, shared_memory=shared_memory, tls=tls, timeout=timeout, on_stall=on_stall, scratch=scratch)
    try:
        return _on_threads(
            n,
            lambda rank: function(made[rank], *args),
            lambda rank: _abort(made, f"rank {rank} failed"),
        )
    finally:
        for group in made:
            group.close()


def _abort(made: Sequence[SocketCommunicator], reason: str) -> None:
    for group in made:
        group.abort(reason)


def _on_threads(n: int, work: Callable[[int], T], failed: Callable[[int], None]) -> list[T]:
    results: dict[int, T] = {}
    errors: list[BaseException] = []  # in the order in which they happened

    def target(rank: int) -> None:
        try:
            results[rank] = work(rank)
        except BaseException as error:  # noqa: BLE001 - raised again below
            errors.append(error)
            failed(rank)

    threads = [threading.Thread(target=target, args=(rank,), name=f"rank-{rank}", daemon=True) for rank in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise root_cause(errors)
    return [results[rank] for rank in range(n)]


def _pair(tls: Contexts | None, near: bool) -> tuple[socket.socket, socket.socket]:
    if tls is None and near:
        return socket.socketpair()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    if tls is None:
        return server, client
    for sock in (client, server):
        sock.settimeout(10.0)
    wrapped: list[ssl.SSLSocket] = []
    thread = threading.Thread(target=lambda: wrapped.append(tls[0].wrap_socket(server, server_side=True)))
    thread.start()
    dialled = tls[1].wrap_socket(client, server_hostname="localhost")
    thread.join()
    return wrapped[0], dialled
