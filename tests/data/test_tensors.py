"""Rows of any shape: what is taken in, what becomes of each value, what is refused; and their way through files and blocks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse

from data.pieces import cut
from scaleml.data.piece import Run
from scaleml.data.piece_file import PieceFile
from scaleml.data.row_dtype import record_of
from scaleml.data.shard import cut_shards
from scaleml.data.stream import Prefetch, Stream
from scaleml.data.tensor_source import tensor_source
from scaleml.data.tensors import as_tensors

pytestmark = pytest.mark.usefixtures("no_file_left")

RNG = np.random.default_rng(3)
IMAGES = RNG.integers(0, 256, (30, 3, 4, 5), dtype="uint8")
AGES = RNG.standard_normal(30)
TOKENS = RNG.integers(0, 99, (30, 6))
BOTH = {"image": IMAGES, "age": AGES, "tokens": TOKENS}
LETTERS = np.array(["a", "b", "c"])[np.arange(30) % 3]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (IMAGES, IMAGES),
        (list(IMAGES), IMAGES),
        (IMAGES.astype(">u2"), IMAGES.astype("u2")),
        (IMAGES > 99, IMAGES > 99),
        (TOKENS, TOKENS),
        (TOKENS[:, 0], TOKENS[:, 0]),
        (AGES, AGES.astype("f4")),
        (AGES.astype("f2"), AGES.astype("f2").astype("f4")),
        (AGES.tolist(), AGES.astype("f4")),
        (pd.DataFrame(TOKENS), TOKENS),
        (pd.Series(AGES), AGES.astype("f4")),
    ],
)
def test_floats_come_in_the_models_dtype_and_others_in_their_own(given: Any, expected: Any) -> None:
    x = as_tensors(given, "X", "float32")
    assert len(x) == len(expected)
    for rows in (np.array([3, 0, 29]), slice(4, 9), slice(0, 0)):
        found = x.take(rows)
        assert found.dtype == expected.dtype
        assert found.dtype.isnative
        np.testing.assert_array_equal(found, expected[rows])


def test_tensors_of_pytorch_are_arrays() -> None:
    torch = pytest.importorskip("torch")
    for tensor in (torch.tensor(IMAGES), torch.tensor(AGES, requires_grad=True), torch.tensor(AGES).bfloat16()):
        expected = tensor.detach().float().numpy() if tensor.is_floating_point() else tensor.numpy()
        np.testing.assert_array_equal(as_tensors(tensor, "X", "float32").take(slice(0, 30)), expected)
    rows = [torch.tensor(image) for image in IMAGES]
    np.testing.assert_array_equal(as_tensors(rows, "X", "float32").take(slice(0, 30)), IMAGES)
    with pytest.raises(TypeError, match="X is sparse"):
        as_tensors(torch.tensor(TOKENS).to_sparse(), "X", "float32")


def test_a_memory_map_is_not_copied(tmp_path: Any) -> None:
    np.save(tmp_path / "x.npy", IMAGES)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    (part,) = as_tensors(mapped, "X", "float32").parts.values()
    assert np.shares_memory(part, mapped)


@pytest.mark.parametrize("given", [BOTH, tuple(BOTH.values())])
def test_several_inputs_are_records_with_aligned_fields(given: Any) -> None:
    x = as_tensors(given, "X", "float64")
    names = ("image", "age", "tokens") if isinstance(given, dict) else ("0", "1", "2")
    assert x.row.names == names
    assert x.row.isalignedstruct
    assert x.items == 3 * 4 * 5 + 1 + 6
    picked = np.array([7, 7, 2])
    for name, whole in zip(names, BOTH.values(), strict=True):
        np.testing.assert_array_equal(x.take(picked)[name], whole[picked])
    again = as_tensors(x.take(slice(0, 30)), "X", "float64")  # a structured array is as good
    assert again.row == x.row
    np.testing.assert_array_equal(again.take(picked), x.take(picked))


def spoilt(values: Any, place: Any, value: float) -> Any:
    copy = np.array(values, np.float64)
    copy[place] = value
    return copy


@pytest.mark.parametrize(
    ("given", "kind", "words"),
    [
        (None, TypeError, "X is None"),
        ("images.npy", TypeError, "load it"),
        (scipy.sparse.eye(3).tocsr(), TypeError, r"X is sparse.*X\.toarray\(\)"),
        (np.array(["a", "b"]), TypeError, "X has dtype <U1"),
        (IMAGES * 1j, TypeError, "dtype complex"),
        (np.zeros((0, 3)), ValueError, r"shape \(0, 3\)"),
        (np.zeros((3, 0)), ValueError, r"shape \(3, 0\)"),
        (3.0, ValueError, "one number"),
        ([[1, 2], [3]], ValueError, r"different shapes.*datasets\.padded"),
        ([np.zeros(2), np.zeros(3)], ValueError, r"different shapes.*datasets\.padded"),
        ({}, TypeError, "each input needs a name"),
        ({1: IMAGES}, TypeError, "each input needs a name"),
        ((), ValueError, "empty tuple"),
        ({"a": {"b": IMAGES}}, TypeError, r"X\['a'\] is a dict within another"),
        ({"a": IMAGES, "b": AGES[:7]}, ValueError, "'a': 30, 'b': 7"),
        ({"a": IMAGES, "b": scipy.sparse.eye(30)}, TypeError, r"X\['b'\] is sparse"),
    ],
)
def test_what_holds_no_rows_of_numbers_is_refused(given: Any, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        as_tensors(given, "X", "float32")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (spoilt(IMAGES, (17, 2, 0, 3), np.nan), r"X is nan in row 117 at \[2, 0, 3\]: must be finite"),
        (spoilt(AGES, 4, np.inf), "X is inf in row 104: must be finite"),
        (spoilt(AGES, 4, 1e39), r"X is 1e\+39 in row 104, too large for float32"),
        ({"a": IMAGES, "b": spoilt(TOKENS, (5, 1), -np.inf)}, r"X\['b'\] is -inf in row 105 at \[1\]"),
    ],
)
def test_a_value_that_is_not_finite_is_named_by_its_row(given: Any, words: str) -> None:
    x = as_tensors(given, "X", "float32", first=100)
    with pytest.raises(ValueError, match=words):
        list(x.blocks(np.random.default_rng(0).permutation(30)))


def test_rows_become_those_of_training_where_that_loses_nothing() -> None:
    row = as_tensors({"a": TOKENS, "b": AGES}, "X", "float32").row
    other = as_tensors({"b": TOKENS[:, 0], "a": TOKENS.astype("i2")}, "X", "float32").fitted(row, "X has")
    np.testing.assert_array_equal(other.take(slice(0, 9))["a"], TOKENS[:9])
    assert other.take(slice(0, 9)).dtype == row
    bytes_ = as_tensors(IMAGES, "X", "float32").row
    with pytest.raises(ValueError, match=r"rows of float32 \(3, 4, 5\), but X has rows of uint8 \(3, 4, 5\)"):
        as_tensors(IMAGES / 255, "X", "float32").fitted(bytes_, "X has")
    with pytest.raises(
        ValueError, match=r"rows of uint8 \(4, 5\), but.*uint8 \(3, 4, 5\): of one row alone pass X\[None\]"
    ):
        as_tensors(IMAGES[0], "X", "float32").fitted(bytes_, "X has")
    large = as_tensors(IMAGES.astype("i4") * 3, "X", "float32").fitted(bytes_, "X has")
    with pytest.raises(ValueError, match="which is no uint8"):
        large.take(slice(0, 30))


def test_targets_are_labels_or_values_of_any_shape() -> None:
    labels = tensor_source(IMAGES, LETTERS, classifier=True, dtype="float32")
    assert (labels.task, labels.n_outputs, labels.target) == ("multiclass", 3, None)
    np.testing.assert_array_equal(labels.encode("float32"), np.arange(30) % 3)
    tokens = tensor_source(TOKENS, TOKENS + 1, classifier=True, dtype="float32")
    assert tokens.classes is None
    assert tokens.target == np.dtype(("i8", (6,)))
    column = tensor_source(TOKENS, AGES[:, None], classifier=False, dtype="float32")
    assert column.target == np.dtype(("f4", (1,)))
    whole = tensor_source(TOKENS, TOKENS[:, 0], classifier=False, dtype="float32")
    assert whole.target == np.dtype("i8")
    several = tensor_source(IMAGES, {"age": AGES, "next": TOKENS}, classifier=False, dtype="float64")
    assert several.target == record_of({"age": np.dtype("f8"), "next": np.dtype(("i8", (6,)))})
    for y, kind, words in (
        ((AGES, AGES), TypeError, "one label a row"),
        (np.stack([AGES, AGES], axis=1), ValueError, "labels must be one a row"),
        (LETTERS[:9], ValueError, "30 rows but y has 9"),
        (None, ValueError, "y is None"),
    ):
        with pytest.raises(kind, match=words):  # type: ignore[arg-type]
            tensor_source(IMAGES, y, classifier=True, dtype="float32")


@pytest.mark.parametrize(("given", "y"), [(IMAGES, LETTERS), (BOTH, {"age": AGES, "next": TOKENS})])
def test_files_hold_the_rows_and_blocks_shuffle_them_whole(given: Any, y: Any) -> None:
    labels = isinstance(y, np.ndarray)
    source = tensor_source(given, y, AGES**2, classifier=labels, dtype="float32")
    order = np.random.default_rng(1).permutation(30)
    nbytes = PieceFile.size(source, order, "float32")
    file = PieceFile(nbytes)
    piece = file.write(source, order, "float32")
    file.seal(b"")
    x, targets, weights = piece.map(0, 30)
    assert x.dtype == source.row.base
    assert x.nbytes <= nbytes
    np.testing.assert_array_equal(x, source.x.take(order))
    np.testing.assert_array_equal(weights, (AGES**2).astype("f4")[order])
    expected = np.arange(30) % 3 if labels else as_tensors(y, "y", "float32").take(slice(0, 30))
    np.testing.assert_array_equal(targets, expected[order])
    parts = [shard.open() for shard in cut(piece, 4)]
    np.testing.assert_array_equal(np.concatenate([part[0] for part in parts]), x)

    (shard,) = cut_shards([Run(piece, 0, 11), Run(piece, 11, 30)], 1, seed=5)  # shuffled, in blocks
    whole = shard.open()
    assert whole[0].dtype == x.dtype
    found = {row.tobytes(): place for place, row in enumerate(x)}
    places = [found[row.tobytes()] for row in whole[0]]
    assert sorted(places) == list(range(30)) != places
    np.testing.assert_array_equal(whole[1], targets[places])
    prefetch = Prefetch()
    stream = Stream(shard.blocks(), prefetch)
    streamed = [tuple(np.array(part) for part in stream.take(start, start + 3)) for start in (*range(0, 30, 3), 0)]
    prefetch.close()
    np.testing.assert_array_equal(np.concatenate([part[0] for part in streamed[:-1]]), whole[0])
    np.testing.assert_array_equal(streamed[-1][0], whole[0][:3])
    file.close()
