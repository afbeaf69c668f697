"""Training and validation set, placed by a stager of this process: what it is asked for, in which order, and what is refused."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest

from data import pieces as stored
from scaleml.arrays import Array
from scaleml.data.collections import is_collection
from scaleml.data.partition import PassOptions, PieceSummary, RowFormat, write_partition
from scaleml.data.partitions import Partitions
from scaleml.data.piece import Arrays, Run
from scaleml.data.shard import cut_shards
from scaleml.data.source import ArraySource, Source, array_source
from scaleml.data.stager import Pieces, Staging
from scaleml.data.training_set import place_training_set

ROWS, CHUNK = 120, 40
X = np.random.default_rng(0).standard_normal((ROWS, 3))
X[:, 0] = np.arange(ROWS)  # says which row it is
Y = np.where(np.arange(ROWS) % 3, "yes", "no")
OTHER = np.random.default_rng(1).standard_normal((30, 3))
OTHER_Y = np.where(np.arange(30) % 2, "yes", "no")
CLASSES = RowFormat("float64", classifier=True, seed=4)
NUMBERS = dataclasses.replace(CLASSES, classifier=False)


@dataclasses.dataclass
class Staged:
    """Files of this process."""

    summaries: tuple[PieceSummary, ...]

    def fetch(self, runs: Sequence[Run]) -> list[Arrays]:
        raise AssertionError("rows come back only where somebody samples them")

    def close(self) -> None:
        raise AssertionError("the stager removes what it has made")


class HereStager:
    """Does in this process what workers do, and notes what it was asked for."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.asked: list[str] = []
        self.placed: list[tuple[Array, Array]] = []
        self._folder = folder

    def accept(self, source: Source, counts: Array | None) -> Array | None:
        self.asked.append(f"accept {source.rows} x {source.features}")
        assert counts is None or counts.sum() <= source.rows
        return None

    def compute(self, columns: Sequence[object]) -> Sequence[object]:
        self.asked.append(f"compute {len(columns)}")
        return dask.compute(*columns)

    def stage(self, tables: Sequence[Staging]) -> list[Staged]:
        self.asked.append(f"stage {', '.join(table.options.name for table in tables)}")
        return [self._staged(table.partitions, table.options) for table in tables]

    def _staged(self, partitions: Partitions, options: PassOptions) -> Staged:
        weights = partitions.weights or [None] * len(partitions.x)
        found = dask.compute(*zip(partitions.x, partitions.y, weights, strict=True), scheduler="sync")
        firsts = partitions.firsts
        return Staged(
            tuple(write_partition(options, k, firsts[k], self._folder, *values) for k, values in enumerate(found))
        )

    def write(self, source: ArraySource, rows: Array, dtype: str, name: str) -> None:
        self.asked.append(f"write {name}")
        self.placed.append((source.x[rows].astype(dtype), source.y[rows]))

    def keep(self, pieces: Pieces, runs: Sequence[Run], seed: int | None = None) -> None:
        self.asked.append(f"keep {'in order' if seed is None else 'shuffled'}")
        x, y, _ = stored.joined(cut_shards(runs, 1, seed))
        self.placed.append((x, y))


@pytest.fixture
def stager(tmp_path: pathlib.Path) -> HereStager:
    return HereStager(tmp_path)


def lazy(values: Any) -> Any:
    return da.from_array(values, chunks=(CHUNK, *values.shape[1:]))


def placed(stager: HereStager, X: Any, y: Any, validation: Any = None, form: RowFormat = CLASSES) -> list[Any]:
    place_training_set(X, y, None, validation, form, stager, stager.accept)
    return stager.placed


def check_rows(parts: Sequence[tuple[Array, Array]]) -> None:
    """All rows of X are there once, each with its label."""
    x, y = np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts])
    order = np.argsort(x[:, 0])
    np.testing.assert_array_equal(x[order], X)
    np.testing.assert_array_equal(y[order], Y == "yes")
    assert not (np.diff(x[:, 0]) > 0).all(), "nothing was shuffled"


@pytest.mark.parametrize(
    ("kind", "asked"),
    [
        (np.asarray, ["accept 120 x 3", "write X"]),
        (lazy, ["stage X", "accept 120 x 3", "keep shuffled"]),
    ],
)
def test_all_rows_are_placed_once(stager: HereStager, kind: Any, asked: list[str]) -> None:
    check_rows(placed(stager, kind(X), kind(Y)))
    assert stager.asked == asked


@pytest.mark.parametrize("kind", [np.asarray, lazy])
def test_a_fraction_of_the_rows_is_placed_apart(stager: HereStager, kind: Any) -> None:
    train, held_out = placed(stager, kind(X), kind(Y), 0.25)
    check_rows([train, held_out])
    assert abs(len(held_out[0]) - 30) <= 3  # of each partition a whole number


@pytest.mark.parametrize("kind", [np.asarray, lazy])
@pytest.mark.parametrize("other", [np.asarray, lazy])
def test_validation_data_of_either_kind_is_placed_second(stager: HereStager, kind: Any, other: Any) -> None:
    train, held_out = placed(stager, kind(X), kind(Y), (other(OTHER), other(OTHER_Y)))
    check_rows([train])
    order, theirs = np.argsort(held_out[0][:, 0]), np.argsort(OTHER[:, 0])
    np.testing.assert_array_equal(held_out[0][order], OTHER[theirs])
    np.testing.assert_array_equal(held_out[1][order], (OTHER_Y == "yes")[theirs])


def test_lazy_columns_beside_arrays_are_computed_together(stager: HereStager) -> None:
    weights = lazy(np.ones(ROWS))
    assert is_collection(weights)
    place_training_set(X, lazy(Y), weights, None, CLASSES, stager, stager.accept)
    assert stager.asked == ["compute 2", "accept 120 x 3", "write X"]
    check_rows(stager.placed)


def test_a_source_is_taken_as_it_is(stager: HereStager) -> None:
    checked = array_source(X, Y, classifier=True)
    train, held_out = placed(stager, checked, None, checked)
    check_rows([train])
    np.testing.assert_array_equal(held_out[0], X)


@pytest.mark.parametrize("kind", [np.asarray, lazy])
@pytest.mark.parametrize("validation", [None, 0.25, "other"])
def test_classes_are_counted_where_they_lie(stager: HereStager, kind: Any, validation: Any) -> None:
    given = (kind(OTHER), kind(OTHER_Y)) if validation == "other" else validation
    tally = place_training_set(kind(X), kind(Y), None, given, CLASSES, stager, stager.accept)
    train, *held_out = stager.placed
    assert tally is not None
    assert tally.counts.tolist() == np.bincount(train[1].astype(int), minlength=2).tolist()
    if not held_out:
        assert tally.held is None
    else:
        assert tally.held is not None
        assert tally.held.tolist() == np.bincount(held_out[0][1].astype(int), minlength=2).tolist()


@pytest.mark.parametrize("kind", [np.asarray, lazy])
def test_what_the_rows_of_a_class_weigh_is_written_with_those_to_train_on(stager: HereStager, kind: Any) -> None:
    seen: list[Any] = []
    stager.write = lambda source, rows, dtype, name: seen.append(
        source.weights if source.weights is None else source.weights[rows]
    )  # type: ignore[method-assign]
    stager.keep = lambda pieces, runs, seed=None: seen.append([run.factors for run in runs])  # type: ignore[method-assign]
    place_training_set(kind(X), kind(Y), None, 0.25, CLASSES, stager, lambda source, counts: np.array([1.0, 3.0]))
    heavy, held_out = seen
    if kind is lazy:
        assert all(set(np.asarray(factors).tolist()) <= {1.0, 3.0} for factors in heavy)
        assert held_out == [None] * len(heavy)
    else:
        assert sorted(set(heavy.tolist())) == [1.0, 3.0]
        assert held_out is None


@pytest.mark.parametrize("kind", [np.asarray, lazy])
def test_what_no_model_takes_is_not_placed(stager: HereStager, kind: Any) -> None:
    def refuse(source: Source, counts: Array | None) -> Array | None:
        raise ValueError("no such loss")

    with pytest.raises(ValueError, match="no such loss"):
        place_training_set(kind(X), kind(Y), None, None, CLASSES, stager, refuse)
    assert stager.placed == []


@pytest.mark.parametrize("kind", [np.asarray, lazy])
@pytest.mark.parametrize(
    ("form", "y", "other", "other_y", "message"),
    [
        (CLASSES, Y, OTHER[:, :2], OTHER_Y, "the validation X has 2 columns, X has 3"),
        (NUMBERS, X[:, 0], OTHER, OTHER, "the validation y has 3 columns, y has 1"),
        (CLASSES, Y, OTHER, np.full(30, "maybe"), "the validation y holds 'maybe'.* none of the training classes"),
    ],
)
def test_validation_data_must_be_like_the_training_set(
    stager: HereStager, kind: Any, form: RowFormat, y: Any, other: Any, other_y: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        placed(stager, kind(X), kind(y), (kind(other), kind(other_y)), form)


@pytest.mark.parametrize("kind", [np.asarray, lazy])
def test_a_fraction_that_leaves_no_rows_is_refused(stager: HereStager, kind: Any) -> None:
    with pytest.raises(ValueError, match="of 2 rows leaves none on one side"):
        placed(stager, kind(X[:2]), kind(Y[:2]), 1e-9)
