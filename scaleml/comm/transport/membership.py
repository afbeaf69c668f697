"""The membership of one communicator: which ranks make it up, what its frames carry, what of a vector each rank owns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from scaleml.comm.conventions import number_hosts, number_of_subset, part
from scaleml.comm.transport.memory import Memory
from scaleml.comm.transport.mesh import Mesh


@final
class Membership:
    """Some of the ranks of a mesh, as the collectives see them.

    Attributes
    ----------
    number : int
        What the frames carry.
    ranks : tuple of int
        The members by their root numbers; `peers` are those without this rank, `of_root` says which member each is.
    rank, size : int
        This rank's number here, and how many there are.
    hosts : tuple of int
        For each member the number of its host, from 0 on in the order of their first ranks.
    one_host : bool
        Whether all share one host's memory.
    memory : Memory
        What they share.
    """

    def __init__(self, mesh: Mesh, ranks: Sequence[int], number: int) -> None:
        self.mesh = mesh
        self.context = context = mesh.context
        self.number = number
        self.ranks = tuple(ranks)
        self.rank = self.ranks.index(context.rank)
        self.size = len(self.ranks)
        self.peers = tuple(peer for peer in self.ranks if peer != context.rank)
        self.of_root = {root: rank for rank, root in enumerate(self.ranks)}
        self.hosts = number_hosts([mesh.hosts[root] for root in self.ranks])
        self.one_host = len(set(self.hosts)) == 1
        mine = self.hosts[self.rank]
        sharers = frozenset(peer for peer in self.peers if self.hosts[self.of_root[peer]] == mine)
        self.memory = Memory(mesh.segments, self.ranks, self.peers, sharers)
        mesh.memories.append(self.memory)
        self._subsets: dict[tuple[int, ...], Membership] = {}

    def part(self, rank: int, n: int) -> tuple[int, int]:
        """Return the (start, stop) of the part of `n` items that `rank` owns."""
        return part(self.size, rank, n)

    def subset(self, ranks: Sequence[int]) -> Membership:
        """Return some of the members, who all know who they are: nothing need be sent. Made once."""
        chosen = tuple(self.ranks[rank] for rank in ranks)
        if chosen not in self._subsets:
            self._subsets[chosen] = Membership(self.mesh, chosen, number_of_subset(self.number, chosen))
        return self._subsets[chosen]

    def other(self, rank: int, name: str) -> int:
        """Return the root number of another member."""
        if not 0 <= rank < self.size or rank == self.rank:
            raise ValueError(f"{name}={rank} must be another rank of this group: 0 to {self.size - 1}, not {self.rank}")
        return self.ranks[rank]
