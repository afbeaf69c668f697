"""Parts of shards: whatever the number of ranks, each row of a batch belongs to one of them, and they have equally many."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaleml.data.batches import Batches, Schedule, opened
from scaleml.data.dataset_items import ItemFormat, SharedDataset
from scaleml.data.dataset_shard import DatasetShard
from scaleml.data.shard_parts import ShardPart, parts_of_rank

SIZES = st.lists(st.integers(0, 40), min_size=1, max_size=7).filter(any)


def numbered(sizes: list[int]) -> list[tuple[np.ndarray, np.ndarray, None]]:
    """Shards whose rows say who they are: x = (shard, row), y = a number unique in the whole data."""
    first = np.cumsum([0, *sizes])
    return [
        (np.column_stack([np.full(size, shard), np.arange(size)]), np.arange(start, start + size), None)
        for shard, (size, start) in enumerate(zip(sizes, first, strict=False))
    ]


@given(SIZES, st.integers(1, 9), st.integers(1, 60))
def test_each_row_of_a_batch_belongs_to_one_rank_which_finds_it_again(sizes: list[int], ranks: int, batch: int) -> None:
    schedule, shards = Schedule(sizes), numbered(sizes)
    alone = Batches(schedule, range(len(sizes)), shards)
    owned = [parts_of_rank(len(sizes), ranks, rank) for rank in range(ranks)]
    together = [Batches(schedule, parts, [shards[part.shard] for part in parts]) for parts in owned]
    for start in range(0, sum(sizes), batch):
        count = min(batch, sum(sizes) - start)
        _, y, _, rows = alone.take(start, count)
        taken = [rank.take(start, count) for rank in together]
        assert np.concatenate([part[1] for part in taken]).tolist() == y.tolist()
        assert sum(part[3] for part in taken) == rows
        for rank, part in zip(together, taken, strict=True):
            found = [rank.locate(start, count, row) for row in range(part[3])]
            assert found == [tuple(pair) for pair in part[0].tolist()]


@pytest.mark.parametrize(("shards", "ranks"), [(1, 1), (6, 3), (64, 4), (5, 5)])
def test_ranks_that_divide_the_shards_own_whole_neighbours(shards: int, ranks: int) -> None:
    for rank in range(ranks):
        expected = range(rank * shards // ranks, (rank + 1) * shards // ranks)
        assert parts_of_rank(shards, ranks, rank) == tuple(ShardPart(shard) for shard in expected)


@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 50))
def test_ranks_have_equally_many_rows_of_long_slices(shards: int, ranks: int, factor: int) -> None:
    rows = ranks * factor  # of each shard's slice: then nothing is left over
    owned = [parts_of_rank(shards, ranks, rank) for rank in range(ranks)]
    counts = {sum(np.diff(part.cut(7, 7 + rows))[0] for part in parts) for parts in owned}
    assert counts == {shards * factor}


class Items:
    """Counts which items are read, and how often."""

    def __init__(self) -> None:
        self.read: list[int] = []

    def __getitem__(self, index: int) -> tuple[np.ndarray, float]:
        self.read.append(index)
        return np.array([index], "f4"), float(index)

    def __len__(self) -> int:
        return 120


def test_of_a_dataset_only_the_own_part_is_read_once_an_epoch() -> None:
    mine = []
    for rank in range(3):
        items = Items()
        form = ItemFormat(np.dtype(("f4", (1,))), np.dtype("f4"), None)
        shared = SharedDataset(lambda items=items: items)
        shards = [DatasetShard(shared, np.arange(low, low + 60), form, None) for low in (0, 60)]
        parts = parts_of_rank(2, 3, rank)
        with opened([shards[part.shard] for part in parts], [], 0, parts=parts) as (sources, _):
            batches = Batches(Schedule([60, 60]), parts, sources)
            batches.take(0, 24)  # the warm-up
            seen = [batches.take(start, 24) for start in range(0, 120, 24)]
            for x, y, _, rows in seen:
                assert x[:, 0].tolist() == y.tolist()
                assert rows == 8
        read = items.read[: sum(each[3] for each in seen)]
        assert sorted(read) == sorted(int(value) for each in seen for value in each[1]), "each once, and no other"
        assert set(items.read) == set(read), "what is read ahead is the beginning of the next epoch"
        mine += read
    assert sorted(mine) == list(range(120))
    assert not [each for each in threading.enumerate() if each.name.startswith("scaleml-prefetch")]
