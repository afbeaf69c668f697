"""Digest of rows: whether a partition that is computed again holds the same rows, at a small part of what writing them costs.

The words of each run of 4 KB are summed, and the sums go into a CRC-32: values that differ show, and rows that have changed places, too,
unless all of them did so within a few KB.
"""

from __future__ import annotations

import zlib
from typing import Final

import numpy as np

from scaleml.arrays import Array

_WORDS: Final = 512


class Digest:
    """Takes in bytes, block by block.

    Attributes
    ----------
    value : int
        Of all that was taken in, 32 bits; it depends on how the bytes were cut into blocks.

    Examples
    --------
    >>> one, other = Digest(), Digest()
    >>> one.update(np.arange(100_000, dtype=np.uint8))
    >>> other.update(np.arange(100_000, dtype=np.uint8)[::-1].copy())
    >>> one.value == other.value
    False
    """

    def __init__(self) -> None:
        self.value = 0

    def update(self, block: Array) -> None:
        """Take in a one-dimensional array of bytes."""
        whole = len(block) // (8 * _WORDS) * 8 * _WORDS
        sums = block[:whole].view(np.uint64).reshape(-1, _WORDS).sum(axis=1, dtype=np.uint64)  # they wrap around
        self.value = zlib.crc32(block[whole:].data, zlib.crc32(sums.data, self.value))
