"""Connections that another framework has made in this process, found and broken from outside: it has no call that does it."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Collection

import psutil


def listening_ports() -> frozenset[int]:
    """Return the TCP ports that this process listens on."""
    connections = psutil.Process().net_connections("tcp")
    return frozenset(one.laddr.port for one in connections if one.status == psutil.CONN_LISTEN)


def shut_connections(but: Collection[int]) -> None:
    """Shut all connections that were made to this process, but for those to some ports: both ends see them closed.

    Whoever waits for one, in whatever thread and language, then gets an error.
    """
    ours = listening_ports() - set(but)
    for connection in psutil.Process().net_connections("tcp"):
        if connection.status == psutil.CONN_ESTABLISHED and connection.laddr.port in ours:
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(connection.fd)) as end:
                end.shutdown(socket.SHUT_RDWR)


def listen(host: str, port_range: tuple[int, int] | None) -> socket.socket:
    """Return a socket that listens at an address, on a free port or the first free one of a range.

    Raises
    ------
    RuntimeError
        Where none is free.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    first, last = port_range or (0, 0)
    for port in range(first, last + 1):
        with contextlib.suppress(OSError):
            return socket.create_server((host, port), family=family)
    raise RuntimeError(
        f"none of the ports {first} to {last} is free at {host}: widen scaleml.comm.port-range in Dask's configuration"
    )
