"""The process grid: a rank's place on each axis of a run, whom it talks to along it, and which parameters it holds.

Axes are ``data`` (ranks that train, each on its part of every batch) and ``server`` (ranks that hold parameters). Ranks are numbered
along the data axis first: ``0 .. workers - 1`` train, those after them serve.

Invariants:

- Every rank of the world has one coordinate, on one axis; `world` reaches all ranks, `data` and `server` those of the own axis.
- The slices of the `ParameterPartition`'s owners follow each other from 0 to P: each parameter is owned once.
- Whoever needs the whole vector asks the partition for it; nobody else knows whether a rank has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from scaleml.arrays import Array
from scaleml.comm.communicator import Communicator
from scaleml.strategies import Layout

Axis = Literal["data", "server"]


@dataclass(frozen=True)
class ParameterPartition:
    """Which slice of the flat vector each rank holds.

    Parameters
    ----------
    size : int
        P, the number of parameters.
    slices : tuple of (start, stop)
        What each rank of the world holds.
    owners : tuple of int
        The ranks whose slices together are the parameters, in the order of these; others hold copies to work on.

    Examples
    --------
    >>> ParameterPartition.replicated(10, ranks=2).owners
    (0,)
    >>> servers = ParameterPartition.of_servers(10, workers=2, servers=2)
    >>> servers.slices, servers.owners
    (((0, 10), (0, 10), (0, 5), (5, 10)), (2, 3))
    """

    size: int
    slices: tuple[tuple[int, int], ...]
    owners: tuple[int, ...]

    def __post_init__(self) -> None:
        ends = [0, *(self.slices[owner][1] for owner in self.owners)]
        starts = [*(self.slices[owner][0] for owner in self.owners), self.size]
        assert starts == ends, f"the owners' slices {starts} to {ends} do not follow each other from 0 to {self.size}"

    @classmethod
    def replicated(cls, size: int, ranks: int) -> ParameterPartition:
        """Return the partition in which every rank holds everything."""
        return cls(size, ((0, size),) * ranks, (0,))

    @classmethod
    def sliced(cls, size: int, ranks: int, width: int = 1) -> ParameterPartition:
        """Return the partition into equal slices, one a rank, of whole multiples of ``width``."""
        return cls(size, cut(size, ranks, width), tuple(range(ranks)))

    @classmethod
    def of_servers(cls, size: int, workers: int, servers: int, width: int = 1) -> ParameterPartition:
        """Return the partition of a run whose servers own a slice each, while every worker holds a copy of all."""
        owners = tuple(range(workers, workers + servers))
        return cls(size, (*((0, size),) * workers, *cut(size, servers, width)), owners)

    def is_whole(self, rank: int) -> bool:
        """Whether a rank holds everything."""
        return self.slices[rank] == (0, self.size)

    def own(self, rank: int) -> slice:
        """Return what a rank holds."""
        return slice(*self.slices[rank])

    def gather(self, part: Array, group: Communicator) -> Array:
        """Return the whole vector (P,) on all ranks of ``group``; collective.

        ``part`` is what this rank holds. Where that is everything it is returned as it is, and nothing is sent.
        """
        ranks = group.ranks
        if all(self.is_whole(rank) for rank in ranks):
            return part
        whole = np.empty(self.size, part.dtype)
        whole[self.own(ranks[group.rank])] = part
        for owner in self.owners:
            group.broadcast(whole[self.own(owner)], root=ranks.index(owner))
        return whole

    def assemble(self, parts: Mapping[int, Array]) -> Array | None:
        """Return the whole vector (P,) from what ranks have left of theirs; None where a slice is missing.

        The first rank that holds everything is taken before the owners' slices.
        """
        for rank in sorted(parts):
            if self.is_whole(rank) and len(parts[rank]) == self.size:
                return parts[rank]
        if any(owner not in parts for owner in self.owners):
            return None
        return np.concatenate([parts[owner] for owner in self.owners])


def cut(size: int, parts: int, width: int = 1) -> tuple[tuple[int, int], ...]:
    """Cut ``size`` items into ``parts`` equal slices of whole multiples of ``width``.

    Examples
    --------
    >>> cut(10, 3), cut(10, 2, width=2)
    (((0, 3), (3, 6), (6, 10)), ((0, 4), (4, 10)))
    """
    keys = size // width
    return tuple((keys * part // parts * width, keys * (part + 1) // parts * width) for part in range(parts))


@dataclass(frozen=True)
class ProcessGrid:
    """One rank's place in a run.

    Parameters
    ----------
    world : Communicator
        All ranks.
    layout : Layout
        How many ranks there are on each axis.
    partition : ParameterPartition
        Who holds which parameters.
    data, server : Communicator or None
        The ranks of the own axis; None for those of the other one.
    """

    world: Communicator
    layout: Layout
    partition: ParameterPartition
    data: Communicator | None
    server: Communicator | None

    @classmethod
    def build(cls, world: Communicator, layout: Layout, partition: ParameterPartition) -> ProcessGrid:
        """Make the communicators of the axes; collective."""
        assert world.size == layout.size, f"{world.size} ranks for a grid of {layout}"
        if not layout.servers:
            return cls(world, layout, partition, world, None)
        serves = layout.is_server(world.rank)
        own = world.split(int(serves), world.rank)
        return cls(world, layout, partition, None if serves else own, own if serves else None)

    @property
    def axis(self) -> Axis:
        """Which axis this rank is on."""
        return "server" if self.layout.is_server(self.world.rank) else "data"

    @property
    def coordinate(self) -> int:
        """The rank's number on its axis."""
        return self.world.rank - (self.layout.workers if self.axis == "server" else 0)

    @property
    def own(self) -> slice:
        """What this rank holds of the vector."""
        return self.partition.own(self.world.rank)

    @property
    def workers(self) -> Communicator:
        """The data axis, on a rank that trains."""
        assert self.data is not None, "a server is not on the data axis"
        return self.data

    @property
    def servers(self) -> Communicator:
        """The server axis, on a server."""
        assert self.server is not None, "a rank that trains is not on the server axis"
        return self.server
