"""Ranks talking to each other, without Dask: the communicator, and what it is made of.

Sockets and what makes them are imported when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from scaleml.comm.communicator import ANY, Communicator, Handle, LinkEmulation, Lock, Message, RateLimiter
from scaleml.comm.errors import (
    Aborted,
    CommError,
    CorruptFrame,
    Deadlock,
    HandshakeError,
    Mismatch,
    PeerLost,
    PeerTimeout,
)
from scaleml.comm.meter import Meter

if TYPE_CHECKING:
    from scaleml.comm.emulation import TokenBucket
    from scaleml.comm.transport.listener import Listener
    from scaleml.comm.transport.rendezvous import connect
    from scaleml.comm.transport.socket_communicator import SocketCommunicator

_HOMES = {
    "Listener": "scaleml.comm.transport.listener",
    "SocketCommunicator": "scaleml.comm.transport.socket_communicator",
    "TokenBucket": "scaleml.comm.emulation",
    "connect": "scaleml.comm.transport.rendezvous",
}

__all__ = [
    "ANY",
    "Aborted",
    "CommError",
    "Communicator",
    "CorruptFrame",
    "Deadlock",
    "Handle",
    "HandshakeError",
    "LinkEmulation",
    "Listener",
    "Lock",
    "Message",
    "Meter",
    "Mismatch",
    "PeerLost",
    "PeerTimeout",
    "RateLimiter",
    "SocketCommunicator",
    "TokenBucket",
    "connect",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'scaleml.comm' has no attribute {name!r}")
    value: object = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
