"""Random numbers a row: a pure function of the seed, the epoch and the row, for many rows at once (SplitMix64)."""

from __future__ import annotations

from typing import Final

import numpy as np

from scaleml.arrays import Array

_GOLDEN: Final = 0x9E3779B97F4A7C15
_ALL: Final = 2**64 - 1


def row_seeds(seed: int, epoch: int, rows: Array) -> Array:
    """Return a random number for each of some rows, uint64 (n,).

    Examples
    --------
    >>> found = row_seeds(0, 3, np.array([7, 8, 7]))
    >>> bool(found[0] == found[2]), len(np.unique([*found, *row_seeds(0, 4, np.array([7])), *row_seeds(1, 3, np.array([7]))]))
    (True, 4)
    """
    return drawn(drawn(drawn(rows.astype(np.uint64), 0), epoch), seed)


def drawn(seeds: Array, number: int) -> Array:
    """Return the random number of that number of each seed, uint64 (n,).

    Notes
    -----
    The finalizer of SplitMix64: Steele, Lea, Flood, Fast splittable pseudorandom number generators, OOPSLA 2014.
    """
    with np.errstate(over="ignore"):
        z = seeds + np.uint64((number + 1) * _GOLDEN & _ALL)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def integers(seeds: Array, number: int, below: int) -> Array:
    """Return integers of 0 to ``below`` - 1, which is less than 2**32, int64 (n,); ``number`` says which of a seed's draws they are.

    Examples
    --------
    >>> np.bincount(integers(np.arange(3000, dtype=np.uint64), 0, 3)).min() > 900
    np.True_
    """
    return ((drawn(seeds, number) >> np.uint64(32)) * np.uint64(below) >> np.uint64(32)).astype(np.int64)
