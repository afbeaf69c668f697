"""Merging: what all ranks get of a simulated collective, by what all gave, and how many bytes that was."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from scaleml.arrays import Array
from scaleml.comm.conventions import part
from scaleml.comm.errors import Mismatch

Merge = Callable[[Sequence[Any]], Sequence[Any]]
"""What all ranks get, by what all gave; both in rank order."""


def total(vectors: Sequence[Array]) -> Array:
    """Return the sum in rank order: the bits of the direct all-reduce."""
    if len(vectors) == 1:
        return vectors[0]
    result: Array = vectors[0] + vectors[1]
    for vector in vectors[2:]:
        result += vector
    return result


def allreduce(vectors: Sequence[Array]) -> Sequence[None]:
    """Write the sum into all."""
    result = total(vectors)
    for vector in vectors:
        vector[:] = result
    return [None] * len(vectors)


def reduce_scatter(vectors: Sequence[Array]) -> Sequence[Array]:
    """Write its part of the sum into each, and return that."""
    result, parts = total(vectors), []
    for rank, vector in enumerate(vectors):
        start, stop = part(len(vectors), rank, len(vector))
        vector[start:stop] = result[start:stop]
        parts.append(vector[start:stop])
    return parts


def allgather(vectors: Sequence[Array]) -> Sequence[Array]:
    """Return all vectors as rows, to each rank its own."""
    rows = np.stack(vectors)
    return [rows.copy() for _ in vectors]


def reduce(root: int) -> Merge:
    """Return what writes the sum into the vector of `root`."""

    def merge(vectors: Sequence[Array]) -> Sequence[None]:
        vectors[root][:] = total(vectors)
        return [None] * len(vectors)

    return merge


def broadcast(root: int) -> Merge:
    """Return what writes the vector of `root` into all."""

    def merge(vectors: Sequence[Array]) -> Sequence[None]:
        for vector in vectors:
            vector[:] = vectors[root]
        return [None] * len(vectors)

    return merge


def copies(payloads: Sequence[bytes]) -> Sequence[list[bytes]]:
    """Return everybody's bytes to each."""
    return [list(payloads) for _ in payloads]


def first(vectors: Sequence[Array]) -> Sequence[Array]:
    """Return the first vector to all."""
    return [vectors[0]] * len(vectors)


def exchange(ranks: Sequence[int]) -> Merge:
    """Return what puts everybody's outgoing into the others' places."""

    def merge(given: Sequence[tuple[Sequence[Array], Sequence[Array], int]]) -> Sequence[None]:
        for giver, (outgoing, _, _) in enumerate(given):
            for taker, (_, places, _) in enumerate(given):
                if giver != taker and len(places[giver]) != len(outgoing[taker]):
                    raise Mismatch(
                        f"rank {ranks[taker]} expected {len(places[giver])} bytes from rank {ranks[giver]}, which sent "
                        f"{len(outgoing[taker])}: all ranks must use the same version and settings",
                        rank=ranks[taker], peer=ranks[giver],
                    )  # fmt: skip
                if giver != taker:
                    places[giver][:] = outgoing[taker]
        return [None] * len(given)

    return merge


def length(vectors: Sequence[Any]) -> int:
    """Return the bytes of one vector, where all have one length."""
    return int(vectors[0].nbytes)


def most_sent(given: Sequence[Any]) -> int:
    """Return the most bytes that one rank gives away."""
    return max(sent for _, _, sent in given)


def most_received(payloads: Sequence[Any]) -> int:
    """Return the most bytes that one rank gets of all others."""
    return sum(map(len, payloads)) - min(map(len, payloads))


def nothing(given: Sequence[object]) -> int:
    """Return that nothing travels."""
    return 0
