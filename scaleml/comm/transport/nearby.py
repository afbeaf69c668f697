"""A second door of every listener, for ranks of its own host: a Unix socket, which takes half the time of a TCP one.

Its name is abstract (Linux): no file that a killed process could leave behind, and out of sight from another network namespace,
such as a container's. Nobody can take the name beforehand who does not know the run's token, for it is made of that; and both ends
ask the kernel who the other one is. Who comes in by it has to prove the token like anybody else.
"""

from __future__ import annotations

import hmac
import os
import socket
import struct
import sys
from typing import Final

_CREDENTIALS: Final = struct.Struct("3i")
"""What the kernel says of a peer: its process, user and group."""
_QUEUE_SECONDS: Final = 1.0
"""How long to queue at a door that others crowd, before the first door is taken."""
_WAIT: Final = struct.Struct("ll")


def listen(address: tuple[str, int], token: bytes) -> socket.socket | None:
    """Open the second door of the listener at `address`; None where there is no such thing."""
    if sys.platform != "linux":
        return None
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.bind(_name(address, token))
        sock.listen(512)
    except OSError:
        sock.close()
        return None
    sock.setblocking(False)
    return sock


def dial(address: tuple[str, int], token: bytes, seconds: float) -> socket.socket | None:
    """Connect to the second door of the listener at `address`; None if there is none of this user here: it is on another host."""
    if sys.platform != "linux":
        return None
    sock = socket.socket(socket.AF_UNIX)
    try:
        # Not a timeout of Python's, with which a door that others crowd is an error at once: so the kernel has us queue.
        microseconds = max(int(min(seconds, _QUEUE_SECONDS) * 1e6), 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _WAIT.pack(*divmod(microseconds, 1_000_000)))
        sock.connect(_name(address, token))
        if is_same_user(sock):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _WAIT.pack(0, 0))
            sock.settimeout(seconds)
            return sock
    except OSError:
        pass
    sock.close()
    return None


def is_same_user(sock: socket.socket) -> bool:
    """Whether the other end of a connected Unix socket was opened by a process of this user."""
    if sys.platform != "linux":
        return False
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, user, _ = _CREDENTIALS.unpack(credentials)
    return user == os.geteuid()


def _name(address: tuple[str, int], token: bytes) -> str:
    place = "{}:{}".format(*address)
    return f"\0scaleml-{hmac.digest(token, f'door {place}'.encode(), 'sha256').hex()}"
