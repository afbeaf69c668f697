"""Which shards, and which parts of shards, each rank owns: equal for any number of ranks and any number of shards.

A batch is one contiguous slice of each shard, whoever owns it. The ranks share them out along the line of all shards: rank ``r`` of
``N`` owns ``[r * S / N, (r + 1) * S / N)`` of ``S`` shards. Of a shard that it owns in part it takes that part of each slice. So the
rows of a batch do not depend on the number of ranks: where that changes in mid-run, sums are of the same rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True)
class ShardPart:
    """The part ``[low / of, high / of)`` of each slice of a shard.

    Parameters
    ----------
    shard : int
    low, high, of : int

    Examples
    --------
    >>> first, second = ShardPart(4, 0, 2, 3), ShardPart(4, 2, 3, 3)
    >>> first.cut(10, 17), second.cut(10, 17)
    ((10, 14), (14, 17))
    """

    shard: int
    low: int = 0
    high: int = 1
    of: int = 1

    @property
    def is_whole(self) -> bool:
        """Whether it is all of the shard."""
        return self.low == 0 and self.high == self.of

    def cut(self, start: int, stop: int) -> tuple[int, int]:
        """Return which rows of the shard's rows ``start:stop`` belong to the part."""
        rows = stop - start
        return start + rows * self.low // self.of, start + rows * self.high // self.of


def parts_of_rank(shards: int, ranks: int, rank: int) -> tuple[ShardPart, ...]:
    """Return what a rank owns; with fewer ranks than shards, and a number that divides theirs, whole neighbouring shards.

    Examples
    --------
    >>> [[part.shard for part in parts_of_rank(6, 3, rank)] for rank in range(3)]
    [[0, 1], [2, 3], [4, 5]]
    >>> parts_of_rank(2, 3, 1)
    (ShardPart(shard=0, low=2, high=3, of=3), ShardPart(shard=1, low=0, high=1, of=3))
    """
    first, last = (
        rank * shards,
        (rank + 1) * shards,
    )  # in parts of a shard, of which each has as many as there are ranks
    parts = []
    for shard in range(first // ranks, -(-last // ranks)):
        low, high = max(first - shard * ranks, 0), min(last - shard * ranks, ranks)
        parts.append(ShardPart(shard) if (low, high) == (0, ranks) else ShardPart(shard, low, high, ranks))
    return tuple(parts)
