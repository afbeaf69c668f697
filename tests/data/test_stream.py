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

import leaks
from data.pieces import cut
from scaleml import arrays
from scaleml.data.batches import OFTEN, Batches, Schedule, opened
from scaleml.data.piece import Piece, Run
from scaleml.data.piece_file import PieceFile
from scaleml.data.shard import Shard
from scaleml.data.source import array_source
from scaleml.data.stream import Blocks, Prefetch, Stream

RNG = np.random.default_rng(3)
SIZES = (40, 1, 90, 25)


def write(folder: Path, rows: int, kind: str) -> Piece:
    x: Any = RNG.standard_normal((rows, 7))
    if kind == "CSR":
        x = scipy.sparse.random(rows, 7, 0.4, format="csr", random_state=rows)
    inputs = array_source(x, RNG.standard_normal(rows), RNG.random(rows) + 0.1, classifier=False)
    store = PieceFile(10_000_000, folder)
    piece = store.write(inputs, np.arange(rows), "float32")
    store.seal(b"end")
    store.detach()
    return piece


@pytest.fixture(scope="module", params=["dense", "CSR"])
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    pieces = [write(tmp_path_factory.mktemp("data"), rows, request.param) for rows in SIZES]
    return [Run(piece, min(2, piece.rows - 1), piece.rows) for piece in pieces]


def plain(part: Any) -> tuple[Any, Any, Any]:
    x, y, weights = part
    return np.array(arrays.to_numpy(x)), np.array(y), np.array(weights)


def assert_same(part: Any, other: Any) -> None:
    for mine, theirs in zip(plain(part), plain(other), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("entropy", [None, (5, 1)])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_stream_gives_the_rows_of_the_whole(entropy: Any, runs: list[Run], data: st.DataObject) -> None:
    block_rows = data.draw(st.integers(1, 200))
    whole = Blocks(runs, block_rows, entropy).all()
    prefetch = Prefetch()
    try:
        stream = Stream(Blocks(runs, block_rows, entropy), prefetch)
        for _ in range(6):
            start = data.draw(st.integers(0, stream.rows))
            stop = data.draw(st.integers(start, stream.rows))
            part = stream.take(start, stop)
            assert_same(part, tuple(arrays.rows(values, start, stop) for values in whole))
        blocks = [plain(block) for block in stream.blocks()]
        assert_same(tuple(np.concatenate(parts) for parts in zip(*blocks, strict=True)), whole)
    finally:
        prefetch.close()


def test_unshuffled_blocks_are_the_runs_one_after_another(runs: list[Run]) -> None:
    x, y, _ = Blocks(runs, 13, None).all()
    expected = [run.piece.map(0, run.piece.rows) for run in runs]
    ends = [(run.start, run.stop) for run in runs]
    np.testing.assert_array_equal(
        y, np.concatenate([part[1][a:b] for part, (a, b) in zip(expected, ends, strict=True)])
    )
    assert x.shape == (sum(b - a for a, b in ends), 7)


def test_every_shuffled_block_is_a_fair_sample_of_all_runs(runs: list[Run]) -> None:
    blocks = Blocks(runs, 30, (0, 0))
    total = blocks.rows
    for block in range(blocks.count):
        for run, low, high in zip(runs, blocks._cuts[block], blocks._cuts[block + 1], strict=True):
            assert abs((high - low) - run.rows / blocks.count) < 1 + 1e-9
    assert int(np.diff(blocks.starts).sum()) == total


def test_batches_of_streams_are_those_of_arrays(runs: list[Run]) -> None:
    shards = [Shard((runs[0], runs[2]), 11, (0, 0)), Shard((runs[3],), 11, (0, 1))]
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
    runs: list[Run], passes: int, room: float, copied: bool
) -> None:
    shards = cut(runs[2].piece, 2)
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


def test_nothing_stays_open(runs: list[Run]) -> None:
    before, threads = leaks.descriptors(), threading.active_count()
    with opened([Shard(tuple(runs), 10, (0, 0))], [], budget=0) as (streams, held):
        assert held is None
        streams[0].take(0, 100)
        assert threading.active_count() == threads + 1
    assert threading.active_count() == threads
    assert not leaks.opened_since(before)


def test_a_file_that_was_cut_short_is_an_error(tmp_path: Path) -> None:
    piece = write(tmp_path, 50, "dense")
    os.truncate(piece.path, 100)
    with pytest.raises(EOFError, match="cut short"):
        Blocks([Run(piece, 0, 50)], 10, None).all()
    with (
        pytest.raises(EOFError, match="cut short"),
        opened([Shard((Run(piece, 0, 50),), 10, None)], [], 0),
    ):
        pass


def test_labels_stand_for_those_of_the_run(tmp_path: Path) -> None:
    store = PieceFile(10_000, tmp_path)
    x = RNG.standard_normal((4, 2))
    piece = store.write_rows(x, np.array([0, 1, 1, 0], "i4"), None, np.arange(4), "float32", "X")
    store.detach()
    _, y, weights = Blocks([Run(piece, 0, 4, np.array([2, 5], "i4"))], 2, None).all()
    assert y.tolist() == [2, 5, 5, 2]
    assert y.dtype == np.int32
    assert weights is None


@pytest.mark.parametrize("entropy", [None, (0, 0)])
def test_columns_that_do_not_count_are_left_out(tmp_path: Path, entropy: Any) -> None:
    piece = write(tmp_path, 60, "CSR")
    columns = np.array([1, 2, 5])
    whole, narrow = (Blocks([Run(piece, 5, 50, columns=chosen)], 20, entropy).all() for chosen in (None, columns))
    assert narrow[0].shape == (45, 3)
    narrow[0].check_format(full_check=True)
    np.testing.assert_array_equal(narrow[0].toarray(), whole[0].toarray()[:, columns])
    np.testing.assert_array_equal(narrow[1], whole[1])
