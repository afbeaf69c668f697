"""Which rows make a batch: each row once an epoch, whatever the shards, the batches and the ranks."""

import itertools

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st

from scaleml import arrays
from scaleml.data.batches import Batches, Schedule

SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=12)
BATCH = st.integers(1, 100)


def slices(schedule: Schedule, consumed: int, count: int) -> list[range]:
    """The rows of each shard that lie in one batch, by asking `taken` at its two ends."""
    shards = range(len(schedule.sizes))
    return [range(schedule.taken(s, consumed), schedule.taken(s, consumed + count)) for s in shards]


def starts(rows: int, batch: int) -> list[tuple[int, int]]:
    """Where an epoch's batches begin and how many rows they ask for: the last one asks for the remainder."""
    return [(start, min(batch, rows - start)) for start in range(0, rows, batch)]


def numbered(sizes: list[int]) -> list[tuple[np.ndarray, np.ndarray, None]]:
    """Shards whose rows say who they are: x = (shard, row), y = a number unique in the whole data."""
    shards, first = [], 0
    for shard, size in enumerate(sizes):
        x = np.column_stack([np.full(size, shard), np.arange(size)])
        shards.append((x, np.arange(first, first + size), None))
        first += size
    return shards


@given(SIZES, BATCH)
def test_every_row_comes_exactly_once_an_epoch(sizes: list[int], batch: int) -> None:
    schedule = Schedule(sizes)
    seen = [
        (s, row) for at in starts(sum(sizes), batch) for s, rows in enumerate(slices(schedule, *at)) for row in rows
    ]
    everything = [(s, row) for s, size in enumerate(sizes) for row in range(size)]
    assert len(seen) == len(everything)
    assert set(seen) == set(everything)


@given(SIZES, st.lists(BATCH, min_size=1, max_size=30))
def test_every_row_comes_once_also_when_the_batch_size_changes(sizes: list[int], batches: list[int]) -> None:
    schedule, rows = Schedule(sizes), sum(sizes)
    seen: list[tuple[int, int]] = []
    consumed = turn = 0
    while consumed < rows:
        count = min(batches[turn % len(batches)], rows - consumed)
        seen += [(s, row) for s, part in enumerate(slices(schedule, consumed, count)) for row in part]
        consumed, turn = consumed + count, turn + 1
    assert sorted(seen) == [(s, row) for s, size in enumerate(sizes) for row in range(size)]


@given(st.integers(1, 12), st.integers(1, 40), BATCH)
def test_equal_shards_give_every_batch_exactly_its_rows(shards: int, size: int, batch: int) -> None:
    schedule = Schedule([size] * shards)
    for start, count in starts(shards * size, batch):
        assert sum(map(len, slices(schedule, start, count))) == count


@given(SIZES, BATCH)
def test_unequal_shards_miss_by_less_than_one_row_a_shard(sizes: list[int], batch: int) -> None:
    schedule = Schedule(sizes)
    for start, count in starts(sum(sizes), batch):
        assert abs(sum(map(len, slices(schedule, start, count))) - count) <= len(sizes)


@given(SIZES, st.data())
def test_what_was_taken_only_grows_from_nothing_to_everything(sizes: list[int], data: st.DataObject) -> None:
    schedule, rows = Schedule(sizes), sum(sizes)
    shard = data.draw(st.integers(0, len(sizes) - 1))
    taken = [schedule.taken(shard, consumed) for consumed in range(rows + 1)]
    assert taken[0] == 0
    assert taken[-1] == sizes[shard]
    assert all(0 <= after - before <= 1 for before, after in itertools.pairwise(taken))


@given(SIZES, st.lists(st.integers(0, 480), max_size=20))
def test_it_is_a_pure_function(sizes: list[int], asked: list[int]) -> None:
    once, again = Schedule(sizes), Schedule(list(sizes))
    shard = len(sizes) - 1
    asked = [min(consumed, sum(sizes)) for consumed in asked]
    forward = [once.taken(shard, consumed) for consumed in asked]
    assert [again.taken(shard, consumed) for consumed in reversed(asked)] == forward[::-1]


def test_large_data_do_not_overflow() -> None:
    size = 3_000_000_000
    schedule = Schedule([size] * 64)
    assert sum(map(len, slices(schedule, 64 * size - 1000, 1000))) == 1000
    assert schedule.taken(63, 64 * size) == size


@given(SIZES, BATCH, st.data())
def test_the_number_of_ranks_does_not_matter(sizes: list[int], batch: int, data: st.DataObject) -> None:
    ranks = data.draw(st.integers(1, len(sizes)))
    shards, schedule = numbered(sizes), Schedule(sizes)
    alone = Batches(schedule, range(len(sizes)), shards)
    bounds = [r * len(sizes) // ranks for r in range(ranks + 1)]
    together = [Batches(schedule, range(low, high), shards[low:high]) for low, high in itertools.pairwise(bounds)]
    for start, count in starts(sum(sizes), batch):
        _, y, _, rows = alone.take(start, count)
        parts = [rank.take(start, count) for rank in together]
        assert np.concatenate([part[1] for part in parts]).tolist() == y.tolist()
        assert sum(part[3] for part in parts) == rows == len(y)


@given(SIZES, BATCH, st.data())
def test_a_row_of_a_batch_is_found_again_in_its_shard(sizes: list[int], batch: int, data: st.DataObject) -> None:
    low = data.draw(st.integers(0, len(sizes) - 1))
    high = data.draw(st.integers(low + 1, len(sizes)))
    rank = Batches(Schedule(sizes), range(low, high), numbered(sizes)[low:high])
    for start, count in starts(sum(sizes), batch):
        x, _, _, rows = rank.take(start, count)
        assert [rank.locate(start, count, row) for row in range(rows)] == [tuple(pair) for pair in x.tolist()]


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("owned", [[0], [2], [0, 1], [1, 2, 3]])
def test_x_y_and_weights_of_a_batch_belong_together(sparse: bool, owned: list[int]) -> None:
    sizes = [5, 1, 7, 4]
    shards = []
    for x, y, _ in (shard for s, shard in enumerate(numbered(sizes)) if s in owned):
        features = np.column_stack([y + 1.0, -(y + 1.0)])
        shards.append(
            (scipy.sparse.csr_matrix(features) if sparse else features, np.column_stack([y, y]), x[:, 0] + 0.5)
        )
    rank = Batches(Schedule(sizes), owned, shards)
    for start, count in starts(sum(sizes), 3):
        x, y, weights, rows = rank.take(start, count)
        assert x.shape == (rows, 2)
        assert y.shape == (rows, 2)
        dense = arrays.to_numpy(x)
        assert dense.tolist() == [[v + 1.0, -(v + 1.0)] for v in y[:, 0].tolist()]
        places = [rank.locate(start, count, row)[0] + 0.5 for row in range(rows)]
        assert weights.tolist() == places


def test_a_rank_without_rows_in_a_batch_gets_empty_arrays_of_the_right_kind() -> None:
    shards = numbered([1, 1, 1, 1])
    rank = Batches(Schedule([1, 1, 1, 1]), [0, 1], [(s[0].astype("f4"), s[1], np.ones(1, "f4")) for s in shards[:2]])
    empty = [rank.take(start, 1) for start in range(4) if rank.take(start, 1)[3] == 0]
    assert len(empty) == 2
    for x, y, weights, _ in empty:
        assert (x.shape, x.dtype.name, y.shape, weights.shape) == ((0, 2), "float32", (0,), (0,))
