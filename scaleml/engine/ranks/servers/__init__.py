"""A parameter server's conversation: what workers and servers tell each other, and the rule of who waits for whom."""

from scaleml.engine.ranks.servers.clients import Clients
from scaleml.engine.ranks.servers.servers import Servers
from scaleml.engine.ranks.servers.slices import DenseSlice, SparseSlice

__all__ = ["Clients", "DenseSlice", "Servers", "SparseSlice"]
