"""Collectives over every kind of link: beside `test_communicators`, what only those with links have."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaleml.comm import Mismatch, inprocess
from scaleml.comm.conventions import part
from scaleml.comm.transport import streaming
from vectors import assert_same, total, vectors

RANKS = (1, 2, 3, 5, 7)  # from 6 on, one speaks for all


@pytest.mark.parametrize("size", RANKS)
def test_bytes_of_any_length_are_gathered(size, way):
    def rank(group):
        for factor in (0, 1, 100_000):
            mine = bytes([group.rank]) * (group.rank * factor)
            assert group.allgather_bytes(mine) == [bytes([r]) * (r * factor) for r in range(group.size)]
        group.barrier()

    inprocess.run(size, rank, **way)


@pytest.mark.parametrize("size", [2, 3, 7])
@pytest.mark.parametrize("n", [10, 100_003])
def test_all_ranks_and_all_ways_give_the_same_bits(size, n, tls):
    def rank(group):
        x = vectors(group.size, n, "float32")[group.rank].copy()
        group.allreduce(x)
        return x.tobytes()

    ways = ({"shared_memory": True}, {"shared_memory": False}, {"shared_memory": False, "tls": tls})
    results = [result for way in (*ways, ways[0]) for result in inprocess.run(size, rank, **way)]
    assert len(set(results)) == 1


@settings(max_examples=15, deadline=None)
@given(st.integers(2, 4), st.lists(st.integers(0, 40_000), min_size=1, max_size=4), st.booleans())
def test_any_lengths_one_after_the_other(size, lengths, shared):
    def rank(group):
        for n in lengths:
            data = vectors(group.size, n, "float64")
            x = data[group.rank].copy()
            group.allreduce(x)
            assert_same(x, total(data))

    inprocess.run(size, rank, shared_memory=shared)


@given(st.integers(1, 9), st.integers(0, 100_000))
def test_parts_cover_all_items_once(size, n):
    bounds = [part(size, rank, n) for rank in range(size)]
    assert bounds[0][0] == 0
    assert bounds[-1][1] == n
    assert all(low <= high for low, high in bounds)
    assert all(a[1] == b[0] for a, b in itertools.pairwise(bounds))


def test_arrays_of_several_dimensions_and_slices_of_buffers(way):
    def rank(group):
        matrix = np.full((3, 5), group.rank + 1.0)
        group.allreduce(matrix)
        assert (matrix == 3).all()
        buffer = group.buffer(100_000, "float64")
        buffer[:] = group.rank + 1
        group.allreduce(buffer[10_000:90_000])
        assert (buffer[10_000:90_000] == 3).all()
        assert (buffer[:10_000] == group.rank + 1).all()
        assert (buffer[90_000:] == group.rank + 1).all()

    inprocess.run(2, rank, **way)


def test_one_rank_in_a_buffer_and_one_without():
    def rank(group):
        buffer = group.buffer(100_000)
        x = buffer if group.rank == 0 else np.empty(100_000, "float32")
        for _ in range(3):
            x[:] = group.rank + 1
            group.allreduce(x)
            assert (x == 3).all()

    inprocess.run(2, rank)


@pytest.mark.parametrize("n", [10, 100_000])
def test_different_lengths_are_named(n, way):
    def rank(group):
        group.allreduce(np.zeros(n + group.rank, "float32"))

    with pytest.raises(Mismatch, match=rf"{n}( items|.*{n + 1})") as caught:
        inprocess.run(2, rank, **way)
    assert caught.value.rank in (0, 1)
    assert caught.value.peer == 1 - caught.value.rank


def test_different_dtypes_and_operations_are_named(way):
    def dtypes(group):
        group.allreduce(np.zeros(10, "float32" if group.rank else "int32"))

    def operations(group):
        if group.rank:
            group.allreduce(np.zeros(10, "float32"))
        else:
            group.allgather(np.zeros(10, "float32"))

    with pytest.raises(Mismatch, match="dtype"):
        inprocess.run(2, dtypes, **way)
    with pytest.raises(Mismatch, match=r"allgather number .* allreduce number|allreduce number .* allgather number"):
        inprocess.run(2, operations, **way)


@pytest.mark.parametrize(
    "x",
    [np.zeros((4, 4))[:, ::2], np.zeros(3, "float16"), np.zeros(3, ">f4"), [1.0, 2.0]],
    ids=lambda x: type(x).__name__,
)
def test_what_cannot_travel_is_refused(x):
    with inprocess.groups(1)[0] as group, pytest.raises(ValueError, match="contiguous NumPy array"):
        group.allreduce(x)


def test_groups_are_split_and_keep_apart(way):
    def rank(group):
        half = group.split(group.rank % 2, key=-group.rank)
        assert half.size == (3 if group.rank % 2 == 0 else 2)
        assert half.ranks == ((4, 2, 0) if group.rank % 2 == 0 else (3, 1))
        for n in (10, 100_000):
            x = np.full(n, float(group.rank))
            half.allreduce(x)
            assert (x == (6 if group.rank % 2 == 0 else 4)).all()
            buffer = half.buffer(n, "float64")
            buffer[:] = group.rank
            half.allreduce(buffer)
            assert (buffer == x).all()
        pair = half.split(0 if half.rank < 2 else None)
        if pair is not None:
            mine = np.array([float(group.rank)])
            assert_same(pair.allgather(mine)[:, 0], pair.ranks)
        group.barrier()

    inprocess.run(5, rank, **way)


def test_overlapping_groups_in_different_orders(way):
    """A row and a column of a grid: what comes early for the one is kept while the other is served."""

    def rank(group):
        row = group.split(group.rank // 2)
        column = group.split(group.rank % 2)
        for n in (5, 50_000):
            for first, second in ((row, column), (column, row)):
                for line in (first, second):
                    x = np.ones(n)
                    line.allreduce(x)
                    assert (x == 2).all()
                group.barrier()

    inprocess.run(4, rank, **way)


def test_blocks_of_sums_overtake(monkeypatch):
    monkeypatch.setattr(streaming, "BLOCK", 1024)

    def rank(group):
        data = vectors(group.size, 20_001, "float32")
        x = data[group.rank].copy()
        group.allreduce(x)
        assert_same(x, total(data))

    for size in (2, 3, 5):
        inprocess.run(size, rank, shared_memory=False)
