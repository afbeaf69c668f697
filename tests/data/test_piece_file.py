"""Data on its way to the workers: what comes out is what NumPy's indexing says, and nothing is left lying about."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

from data.pieces import RNG, cut, dense, inputs, joined, sparse, written
from scaleml import arrays
from scaleml.data import piece_file
from scaleml.data.piece_file import PieceFile
from scaleml.data.shard import ArrayShard
from scaleml.data.split import hold_out

pytestmark = pytest.mark.usefixtures("no_file_left")

LABELS = np.array(["ant", "bee", "cow"])[np.arange(200) % 3]
KINDS = {
    "dense float64": (dense(200), RNG.standard_normal(200), None, False),
    "dense float32": (dense(200, dtype="f4"), RNG.standard_normal(200), None, False),
    "dense int8": (np.arange(1000, dtype="i1").reshape(200, 5), RNG.standard_normal(200), None, False),
    "dense bool": (dense(200) > 0, RNG.standard_normal(200), None, False),
    "Fortran order": (np.asfortranarray(dense(200)), RNG.standard_normal(200), None, False),
    "strided": (dense(400)[::2, ::-1], RNG.standard_normal(200), None, False),
    "one column": (dense(200, 1), RNG.standard_normal(200), None, False),
    "weights": (dense(200), RNG.standard_normal(200), RNG.random(200), False),
    "three targets": (dense(200), RNG.standard_normal((200, 3)), None, False),
    "two classes": (dense(200), np.arange(200) % 2 == 0, RNG.random(200), True),
    "three classes": (dense(200), LABELS, None, True),
    "CSR": (sparse(200), RNG.standard_normal(200), None, False),
    "CSR, weights and targets": (sparse(200), RNG.standard_normal((200, 2)), RNG.random(200), False),
    "CSC": (sparse(200).tocsc(), LABELS, None, True),
    "CSR without entries": (scipy.sparse.csr_matrix((200, 4)), RNG.standard_normal(200), None, False),
    "CSR array": (scipy.sparse.csr_array(sparse(200)), RNG.standard_normal(200), None, False),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_round_trip_gives_what_indexing_gives(kind: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(piece_file, "_BLOCK", 1000)  # many blocks, also of a small file
    x, y, weights, classifier = KINDS[kind]
    data = inputs(x, y, weights, classifier=classifier)
    rows, _ = hold_out(200, 0.25, seed=5)
    file, shards = written(data, rows, dtype, shards=7)
    got_x, got_y, got_weights = joined(shards)
    expected = (x.toarray() if scipy.sparse.issparse(x) else np.asarray(x))[rows].astype(dtype)
    np.testing.assert_array_equal(got_x, expected)
    assert got_x.dtype == dtype
    if classifier:
        assert [data.classes[int(code)] for code in got_y] == list(np.asarray(y)[rows])
        assert got_y.dtype == (dtype if len(data.classes) == 2 else "int32")
    else:
        np.testing.assert_array_equal(got_y, y[rows].astype(dtype))
    if weights is None:
        assert got_weights is None
    else:
        np.testing.assert_array_equal(got_weights, weights[rows].astype(dtype))
    assert sum(shard.rows for shard in shards) == len(rows)
    assert os.path.getsize(file.path) <= PieceFile.size(data, rows, dtype)
    file.close()


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_any_rows_in_any_order_cut_anyhow(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 30))
    x = sparse(n, 6) if data.draw(st.booleans()) else dense(n, 6)
    rows = np.array(data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=40)), np.int64)
    file, shards = written(inputs(x, np.arange(float(n))), rows, shards=data.draw(st.integers(1, len(rows))))
    got_x, got_y, _ = joined(shards)
    file.close()
    np.testing.assert_array_equal(got_x, arrays.to_numpy(x)[rows].astype("f4"))
    assert got_y.tolist() == rows.tolist()
    sizes = [shard.rows for shard in shards]
    assert max(sizes) - min(sizes) <= 1


def test_two_tables_share_one_file() -> None:
    train, held_out = inputs(dense(50), np.arange(50.0)), inputs(sparse(20), np.arange(20.0), np.ones(20))
    rows = [np.arange(50)[::-1], np.arange(20)]
    file = PieceFile(PieceFile.size(train, rows[0], "float32") + PieceFile.size(held_out, rows[1], "float32"))
    first = cut(file.write(train, rows[0], "float32"), 2)
    second = cut(file.write(held_out, rows[1], "float32"), 3)
    file.seal(b"nonce")
    np.testing.assert_array_equal(joined(first)[0], train.x[rows[0]].astype("f4"))
    np.testing.assert_array_equal(joined(second)[0], held_out.x.toarray().astype("f4"))
    assert Path(file.path).read_bytes().endswith(b"nonce")
    file.close()


def test_a_shard_is_a_view_of_the_file_and_cannot_be_written() -> None:
    file, (shard,) = written(inputs(dense(20), np.arange(20.0)), np.arange(20))
    x, y, _ = shard.open()
    assert isinstance(x, np.ndarray)
    assert not x.flags.owndata
    assert not x.flags.writeable
    assert not y.flags.writeable
    file.close()


def test_what_is_mapped_stays_readable_after_the_file_is_gone() -> None:
    data = inputs(dense(20), np.arange(20.0))
    file, (shard,) = written(data, np.arange(20))
    x, _, _ = shard.open()
    file.close()
    np.testing.assert_array_equal(x, data.x.astype("f4"))


def test_shards_through_memory_are_those_through_the_file() -> None:
    for x in (dense(90), sparse(90)):
        data = inputs(x, LABELS[:90], RNG.random(90), classifier=True)
        rows = RNG.permutation(90)
        file, shards = written(data, rows, shards=4)
        for shard in shards:
            mapped = shard.open()
            sent = pickle.loads(pickle.dumps(ArrayShard(*shard.open())))
            assert sent.rows == shard.rows
            for here, there in zip(mapped, sent.open(), strict=True):
                assert here.dtype == there.dtype
                np.testing.assert_array_equal(arrays.to_numpy(here), arrays.to_numpy(there))
        file.close()


# What is refused, by its place in the user's data.

BAD = {"NaN": np.nan, "infinite": -np.inf, "too large for float32": 1e39}


@pytest.mark.parametrize("value", BAD.values(), ids=BAD.keys())
@pytest.mark.parametrize("matrix", ["dense", "CSR"])
def test_a_value_that_is_not_finite_is_named_by_row_and_column(value: float, matrix: str) -> None:
    x = dense(500, 7)
    x[417, 5] = value
    data = inputs(scipy.sparse.csr_matrix(x) if matrix == "CSR" else x, np.arange(500.0))
    rows = RNG.permutation(500)
    file = PieceFile(PieceFile.size(data, rows, "float32"))
    with pytest.raises(ValueError, match=r"row 417, column 5 .*float32.*drop or impute"):
        file.write(data, rows, "float32")
    file.close()


def test_what_is_too_large_for_float32_fits_float64() -> None:
    x = dense(10)
    x[3, 2] = 1e39
    file, shards = written(inputs(x, np.arange(10.0)), np.arange(10), "float64")
    np.testing.assert_array_equal(joined(shards)[0], x)
    file.close()


def test_large_values_whose_sum_overflows_are_no_error() -> None:
    x = np.full((50, 4), 3e38)
    file, shards = written(inputs(x, np.arange(50.0)), np.arange(50))
    np.testing.assert_array_equal(joined(shards)[0], x.astype("f4"))
    file.close()


def test_only_the_rows_asked_for_are_looked_at() -> None:
    x = dense(20)
    x[3] = np.nan
    file, shards = written(inputs(x, np.arange(20.0)), np.arange(4, 20))
    np.testing.assert_array_equal(joined(shards)[0], x[4:].astype("f4"))
    file.close()
