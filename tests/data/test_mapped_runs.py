"""Rows of several files read where they lie are the rows of one array that is all of them."""

from pathlib import Path

import numpy as np
from numpy.testing import assert_array_equal

from scaleml.data.batches import OFTEN, Batches, Schedule, opened
from scaleml.data.mapped_runs import MappedRuns
from scaleml.data.piece import Run
from scaleml.data.piece_file import PieceFile
from scaleml.data.shard import Shard
from scaleml.data.source import array_source

RNG = np.random.default_rng(3)
X = RNG.standard_normal((160, 7))
CODES, FACTORS = np.array([1.0, 0.0, 5.0], "f4"), np.array([2.0, 1.0, 0.5], "f4")


def runs_of(folder: Path, weighted: bool) -> tuple[list[Run], tuple[np.ndarray, np.ndarray, np.ndarray | None]]:
    y, weights = RNG.integers(0, 3, len(X)), RNG.random(len(X)) + 0.1
    runs, kept = [], []
    for start, stop in ((0, 40), (40, 41), (41, 131), (131, 160)):
        source = array_source(X[start:stop], y[start:stop], weights[start:stop] if weighted else None, classifier=False)
        file = PieceFile(1_000_000, folder)
        piece = file.write_rows(source.x, y[start:stop].astype("i4"), source.encode_weights("f4"), np.arange(stop - start),
                                "float32", "X")  # fmt: skip
        file.seal(b"end")
        file.detach()
        first = min(2, piece.rows - 1)
        runs.append(Run(piece, first, piece.rows, codes=CODES, factors=FACTORS if weighted else None))
        kept.append(np.arange(start + first, stop))
    rows = np.concatenate(kept)
    mass = (weights.astype("f4")[rows] * FACTORS[y[rows]]) if weighted else None
    return runs, (X[rows].astype("f4"), CODES[y[rows]], mass)


def test_any_rows_are_those_of_one_array(tmp_path):
    for weighted in (False, True):
        runs, (x, y, weights) = runs_of(tmp_path, weighted)
        mapped = MappedRuns(runs)
        assert mapped.rows == len(x)
        for start in range(0, len(x) + 1, 3):
            for stop in (start, start + 1, start + 37, len(x)):
                found = mapped.take(start, stop)
                assert_array_equal(found[0], x[start:stop])
                assert_array_equal(found[1], y[start:stop])
                assert found[2] is None if weights is None else (found[2] == weights[start:stop]).all()
        parts = list(mapped.blocks())
        assert len(parts) == 4
        assert_array_equal(np.concatenate([part[0] for part in parts]), x)


def test_a_shard_in_order_is_mapped_and_one_that_is_shuffled_or_read_often_is_copied(tmp_path):
    runs, (x, _, _) = runs_of(tmp_path, True)
    for shard, passes, is_mapped in (
        (Shard(tuple(runs), 8), 1, True),
        (Shard(tuple(runs), 8), OFTEN, False),
        (Shard(tuple(runs), 8, (1, 2)), 1, False),
        (Shard((runs[2],), 8), 1, False),  # one file is mapped as it is
    ):
        with opened([shard], [], float("inf"), passes=passes, room=float("inf")) as ((found,), _):
            assert isinstance(found, MappedRuns) == is_mapped
            taken = Batches(Schedule([shard.rows]), [0], [found]).take(0, shard.rows)
        if shard.entropy is None and len(shard.runs) > 1:
            assert_array_equal(taken[0], x)


def test_rows_in_order_are_written_as_those_that_are_picked(tmp_path):
    source = array_source(X, X[:, 0], classifier=False)
    pieces = []
    for rows in (np.arange(30, 90), np.array([*range(30, 89), 89]), np.arange(90, 30, -1)):
        file = PieceFile(1_000_000, tmp_path)
        pieces.append(file.write(source, rows, "float32"))
        assert_array_equal(pieces[-1].map(0, len(rows))[0], X[rows].astype("f4"))
        file.close()
