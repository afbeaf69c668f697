"""Which rows of which shard make a batch: a pure function of the rows consumed so far."""

from __future__ import annotations

from collections.abc import Sequence


class Schedule:
    """How the shards take turns through an epoch.

    After ``consumed`` rows of an epoch, shard ``s`` of ``S``, which holds ``n_s`` of the ``n`` rows, has given
    ``floor(consumed * n_s / n + s / S)`` of them. So a batch is one contiguous slice of each shard, every row
    comes once an epoch, and the ranks that hold the shards do not matter. With equal shards the slices of a
    batch of B rows add up to exactly B (Hermite's identity); with unequal ones to within the number of shards.

    Parameters
    ----------
    sizes : sequence of int
        Rows of each shard.

    Examples
    --------
    >>> schedule = Schedule([4, 4])
    >>> [schedule.taken(0, consumed) for consumed in (0, 3, 6, 8)]
    [0, 1, 3, 4]
    >>> [schedule.taken(1, consumed) for consumed in (0, 3, 6, 8)]
    [0, 2, 3, 4]
    """

    __slots__ = ("_divisor", "_factors", "rows", "sizes", "whole")

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes = tuple(int(size) for size in sizes)
        self.rows = sum(self.sizes)
        count = len(self.sizes)
        self.whole = count == 1
        self._divisor = max(1, self.rows * count)
        self._factors = [(size * count, index * self.rows) for index, size in enumerate(self.sizes)]

    def taken(self, shard: int, consumed: int) -> int:
        """Return how many rows of ``shard`` lie in the first ``consumed`` rows of an epoch."""
        factor, phase = self._factors[shard]
        return (consumed * factor + phase) // self._divisor
