"""Rows read block by block are the rows read at once, in any order of asking; and nothing stays open."""

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

from scaleml import arrays
from scaleml.data.inputs import check_inputs
from scaleml.data.reading import Blocks, Prefetch, Segment, Stream
from scaleml.data.schedule import Schedule
from scaleml.data.shards import OFTEN, Batches, SegmentedShard, opened
from scaleml.data.store import Store
from scaleml.data.tables import Table

RNG = np.random.default_rng(3)
SIZES = (40, 1, 90, 25)


def write(folder: Path, rows: int, kind: str) -> Table:
    x: Any = RNG.standard_normal((rows, 7))
    if kind == "CSR":
        x = scipy.sparse.random(rows, 7, 0.4, format="csr", random_state=rows)
    inputs = check_inputs(x, RNG.standard_normal(rows), RNG.random(rows) + 0.1, classifier=False)
    store = Store(10_000_000, folder)
    table = store.write(inputs, np.arange(rows), "float32")
    store.seal(b"end")
    store.detach()
    return table


@pytest.fixture(scope="module", params=["dense", "CSR"])
def segments(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Segment]:
    tables = [write(tmp_path_factory.mktemp("data"), rows, request.param) for rows in SIZES]
    return [Segment(table, min(2, table.rows - 1), table.rows) for table in tables]


def plain(part: Any) -> tuple[Any, Any, Any]:
    x, y, weights = part
    return np.array(arrays.to_numpy(x)), np.array(y), np.array(weights)


def assert_same(part: Any, other: Any) -> None:
    for mine, theirs in zip(plain(part), plain(other), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("entropy", [None, (5, 1)])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_stream_gives_the_rows_of_the_whole(entropy: Any, segments: list[Segment], data: st.DataObject) -> None:
    block_rows = data.draw(st.integers(1, 200))
    whole = Blocks(segments, block_rows, entropy).all()
    prefetch = Prefetch()
    try:
        stream = Stream(Blocks(segments, block_rows, entropy), prefetch)
        for _ in range(6):
            start = data.draw(st.integers(0, stream.rows))
            stop = data.draw(st.integers(start, stream.rows))
            part = stream.take(start, stop)
            assert_same(part, tuple(arrays.rows(values, start, stop) for values in whole))
        blocks = [plain(block) for block in stream.blocks()]
        assert_same(tuple(np.concatenate(parts) for parts in zip(*blocks, strict=True)), whole)
    finally:
        prefetch.close()


def test_unshuffled_blocks_are_the_segments_one_after_another(segments: list[Segment]) -> None:
    x, y, _ = Blocks(segments, 13, None).all()
    expected = [segment.table.cut(1)[0].open() for segment in segments]
    ends = [(segment.start, segment.stop) for segment in segments]
    np.testing.assert_array_equal(
        y, np.concatenate([part[1][a:b] for part, (a, b) in zip(expected, ends, strict=True)])
    )
    assert x.shape == (sum(b - a for a, b in ends), 7)


def test_every_shuffled_block_is_a_fair_sample_of_all_segments(segments: list[Segment]) -> None:
    blocks = Blocks(segments, 30, (0, 0))
    total = blocks.rows
    for block in range(blocks.count):
        for segment, low, high in zip(segments, blocks._cuts[block], blocks._cuts[block + 1], strict=True):
            assert abs((high - low) - segment.rows / blocks.count) < 1 + 1e-9
    assert int(np.diff(blocks.starts).sum()) == total


def test_batches_of_streams_are_those_of_arrays(segments: list[Segment]) -> None:
    shards = [SegmentedShard((segments[0], segments[2]), 11, (0, 0)), SegmentedShard((segments[3],), 11, (0, 1))]
    schedule = Schedule([shard.rows for shard in shards])
    with opened(shards, shards[:1], budget=0) as (streams, held), opened(shards, [], budget=1e9) as (kept, _):
        assert all(isinstance(stream, Stream) for stream in [*streams, held])
        ones, others = (Batches(schedule, (0, 1), sources) for sources in (streams, kept))
        for _ in range(2):  # two epochs
            for consumed in range(0, schedule.rows, 17):
                count = min(17, schedule.rows - consumed)
                mine, theirs = ones.take(consumed, count), others.take(consumed, count)
                assert_same(mine[:3], theirs[:3])
                assert mine[3] == theirs[3]


@pytest.mark.parametrize(
    ("passes", "room", "copied"), [(OFTEN, 1e9, True), (OFTEN - 1, 1e9, False), (OFTEN, 100, False)]
)
def test_what_is_read_often_is_copied_where_there_is_room(
    segments: list[Segment], passes: int, room: float, copied: bool
) -> None:
    shards = segments[2].table.cut(2)
    plain = [shard.open() for shard in shards]
    is_dense = not arrays.is_sparse(plain[0][0])
    with opened(shards, [], budget=float("inf"), passes=passes, room=room) as (sources, _):
        for mine, mapped in zip(sources, plain, strict=True):
            assert isinstance(mine, tuple)
            assert_same(mine, mapped)
            if is_dense:
                assert not mine[0].flags.writeable
                assert copied != lies_in_a_file(mine[0])


def lies_in_a_file(array: Any) -> bool:
    while isinstance(array, np.ndarray):
        if isinstance(array, np.memmap):
            return True
        array = array.base
    return False


def test_nothing_stays_open(segments: list[Segment]) -> None:
    before = len(os.listdir("/proc/self/fd")), threading.active_count()
    with opened([SegmentedShard(tuple(segments), 10, (0, 0))], [], budget=0) as (streams, held):
        assert held is None
        streams[0].take(0, 100)
        assert threading.active_count() == before[1] + 1
    assert (len(os.listdir("/proc/self/fd")), threading.active_count()) == before


def test_a_file_that_was_cut_short_is_an_error(tmp_path: Path) -> None:
    table = write(tmp_path, 50, "dense")
    os.truncate(table.path, 100)
    with pytest.raises(EOFError, match="cut short"):
        Blocks([Segment(table, 0, 50)], 10, None).all()
    with (
        pytest.raises(EOFError, match="cut short"),
        opened([SegmentedShard((Segment(table, 0, 50),), 10, None)], [], 0),
    ):
        pass


def test_labels_stand_for_those_of_the_run(tmp_path: Path) -> None:
    store = Store(10_000, tmp_path)
    x = RNG.standard_normal((4, 2))
    table = store.write_rows(x, np.array([0, 1, 1, 0], "i4"), None, np.arange(4), "float32", "X")
    store.detach()
    _, y, weights = Blocks([Segment(table, 0, 4, np.array([2, 5], "i4"))], 2, None).all()
    assert y.tolist() == [2, 5, 5, 2]
    assert y.dtype == np.int32
    assert weights is None


@pytest.mark.parametrize("entropy", [None, (0, 0)])
def test_columns_that_do_not_count_are_left_out(tmp_path: Path, entropy: Any) -> None:
    table = write(tmp_path, 60, "CSR")
    columns = np.array([1, 2, 5])
    whole, narrow = (Blocks([Segment(table, 5, 50, columns=chosen)], 20, entropy).all() for chosen in (None, columns))
    assert narrow[0].shape == (45, 3)
    narrow[0].check_format(full_check=True)
    np.testing.assert_array_equal(narrow[0].toarray(), whole[0].toarray()[:, columns])
    np.testing.assert_array_equal(narrow[1], whole[1])
