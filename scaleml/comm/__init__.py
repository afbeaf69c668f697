"""Ranks talking to each other: links, shared memory and groups, without Dask."""

from .channel import ANY
from .errors import Aborted, CommError, CorruptFrame, HandshakeError, Mismatch, PeerLost, PeerTimeout
from .group import Group
from .listener import Listener
from .lock import Lock
from .memory import locked_memory, shared_vector
from .messages import Message
from .meter import Meter
from .progress import Handle
from .rendezvous import connect

__all__ = [
    "ANY",
    "Aborted",
    "CommError",
    "CorruptFrame",
    "Group",
    "Handle",
    "HandshakeError",
    "Listener",
    "Lock",
    "Message",
    "Meter",
    "Mismatch",
    "PeerLost",
    "PeerTimeout",
    "connect",
    "locked_memory",
    "shared_vector",
]
