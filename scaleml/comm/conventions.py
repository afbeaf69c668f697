"""The conventions of every communicator: parts of a vector, numbers of hosts, who has one color."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence
from typing import Final

from scaleml.arrays import Array

INLINE: Final = 64 * 1024
"""Bytes up to which a vector is short: it travels whole, in one piece with its header."""

BLOCK: Final = 512 * 1024
"""Bytes of a block of a long vector: handed on while the next one comes, and summed while in cache."""

_COLOR = struct.Struct("<?qq")
_NUMBER = struct.Struct("<IQq")


def part(size: int, rank: int, n: int) -> tuple[int, int]:
    """Return the (start, stop) of the part of `n` items that `rank` of `size` owns: of long vectors, whole cache lines.

    Examples
    --------
    >>> [part(3, rank, 10) for rank in range(3)]
    [(0, 3), (3, 6), (6, 10)]
    """
    align = 16 if n >= 1024 * size else 1
    start = n * rank // size // align * align
    return start, n if rank == size - 1 else n * (rank + 1) // size // align * align


def blocks(x: Array, start: int, stop: int) -> list[Array]:
    """Return ``x[start:stop]`` cut into blocks.

    Examples
    --------
    >>> import numpy as np
    >>> [block.size for block in blocks(np.zeros(200_000), 10, 140_010)]
    [65536, 65536, 8928]
    """
    step = BLOCK // x.itemsize
    return [x[low : min(low + step, stop)] for low in range(start, stop, step)]


def number_hosts(hosts: Sequence[int]) -> tuple[int, ...]:
    """Return the numbers of hosts anew, from 0 on in the order of their first ranks.

    Examples
    --------
    >>> number_hosts([3, 1, 3])
    (0, 1, 0)
    """
    numbers: dict[int, int] = {}
    return tuple(numbers.setdefault(host, len(numbers)) for host in hosts)


def same_color(
    gather: Callable[[bytes], list[bytes]], ranks: Sequence[int], color: int | None, key: int
) -> tuple[int, ...]:
    """Return those of `ranks` that give the same `color`, ordered by (`key`, rank); collective, by ``allgather_bytes``."""
    found = []
    for rank, reply in enumerate(gather(_COLOR.pack(color is not None, color or 0, key))):
        valid, theirs, order = _COLOR.unpack(reply)
        if valid and theirs == color:
            found.append((order, rank))
    return tuple(ranks[rank] for _, rank in sorted(found))


def number_of(parent: int, sequence: int, color: int) -> int:
    """Return what the frames of a new communicator carry."""
    return zlib.crc32(_NUMBER.pack(parent, sequence, color))


def number_of_subset(parent: int, ranks: Sequence[int]) -> int:
    """Return what the frames of a part of a communicator carry, which is made without talk: by its members."""
    return number_of(parent, 0, zlib.crc32(repr(tuple(ranks)).encode()))


def bytes_of(x: Array) -> memoryview:
    """View the bytes of a contiguous array."""
    return memoryview(x.data).cast("B") if x.size else memoryview(b"")
