"""Shards are runs of pieces, cut in one walk; each row is in one of them, in order, wherever its piece comes to lie."""

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from scaleml.data.piece import Piece, Region, Run
from scaleml.data.shard import Shard, cut_shards


def run_of(number: int, start: int, stop: int, **settings: Any) -> Run:
    piece = Piece(str(number), 50, 3, Region(0, (50, 3), "<f4"), Region(640, (50,), "<f4"), None)
    return Run(piece, start, stop, **settings)


def rows_of(shard: Shard) -> list[tuple[str, int]]:
    return [(run.piece.path, row) for run in shard.runs for row in range(run.start, run.stop)]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 40)), min_size=1, max_size=12), st.integers(1, 70))
def test_each_row_is_in_one_shard_in_order_and_shards_are_nearly_equal(runs: list[tuple[int, int]], count: int) -> None:
    given_runs = [run_of(number, start, start + rows) for number, (start, rows) in enumerate(runs)]
    shards = cut_shards(given_runs, count, seed=3)
    total = sum(rows for _, rows in runs)
    every = [row for run in given_runs for row in rows_of(Shard((run,), 1))]
    assert [row for shard in shards for row in rows_of(shard)] == every
    assert [shard.rows for shard in shards] == [total * (s + 1) // count - total * s // count for s in range(count)]
    assert all(shard.runs for shard in shards)  # one without rows can be opened, too
    assert [shard.entropy for shard in shards] == [(3, s) for s in range(count)]


def test_the_same_rows_where_their_pieces_lie_now() -> None:
    (shard,) = cut_shards([run_of(0, 5, 10, codes=np.array([1, 0])), run_of(1, 0, 7)], 1)
    moved = shard.at({"1": run_of(8, 0, 1).piece, "5": run_of(9, 0, 1).piece})
    assert rows_of(moved) == [("0", row) for row in range(5, 10)] + [("8", row) for row in range(7)]
    assert moved.runs[0].codes is shard.runs[0].codes
    assert shard.at({"5": run_of(9, 0, 1).piece}) is shard


def test_only_a_run_as_it_lies_in_its_file_is_mapped() -> None:
    plain = run_of(0, 5, 10)
    assert Shard((plain,), 1).is_mapped
    assert not Shard((plain,), 1, (0, 0)).is_mapped
    assert not Shard((plain, plain), 1).is_mapped
    assert not Shard((run_of(0, 5, 10, factors=np.array(2.0)),), 1).is_mapped
