"""A second door of every listener, for ranks of its own host: a Unix socket, which takes half the time of a TCP one.

Its name is abstract (Linux): no file that a killed process could leave behind, and out of sight from another network namespace,
such as a container's. Who comes in by it has to know the token like anybody else.
"""

from __future__ import annotations

import socket
import sys


def listen(address: tuple[str, int]) -> socket.socket | None:
    """Open the second door of the listener at `address`; None where there is no such thing."""
    if sys.platform != "linux":
        return None
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.bind(_name(address))
        sock.listen(512)
    except OSError:
        sock.close()
        return None
    sock.setblocking(False)
    return sock


def dial(address: tuple[str, int], seconds: float) -> socket.socket | None:
    """Connect to the second door of the listener at `address`; None if there is none here: it is on another host."""
    if sys.platform != "linux":
        return None
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.settimeout(seconds)
        sock.connect(_name(address))
    except OSError:
        sock.close()
        return None
    return sock


def _name(address: tuple[str, int]) -> str:
    return "\0scaleml-{}:{}".format(*address)
