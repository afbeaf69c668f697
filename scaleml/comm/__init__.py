"""Ranks talking to each other: links, shared memory and groups, without Dask."""

from .channel import ANY
from .errors import Aborted, CommError, CorruptFrame, HandshakeError, Mismatch, PeerLost, PeerTimeout
from .group import Group
from .listener import Listener
from .memory import shared_vector
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
    "Message",
    "Meter",
    "Mismatch",
    "PeerLost",
    "PeerTimeout",
    "connect",
    "shared_vector",
]
