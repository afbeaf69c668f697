"""Partitions of lazy sources that are made anew, and differ, each time they are read: made once, and rows stay paired."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pandas as pd
import pytest
from dask import delayed

from scaleml.data.collections import Table, partitions_of

dd = pytest.importorskip("dask.dataframe", reason="Dask's dataframes need pyarrow")

FACTORS = np.array([1.0, 2.0, 3.0])
COLUMNS = ["a", "b", "c"]
PARTS = 3


class Source:
    """A source without a seed, which counts how often each of its parts is read."""

    def __init__(self) -> None:
        self.reads = [0] * PARTS

    def read(self, number: int) -> pd.DataFrame:
        self.reads[number] += 1
        x = np.random.default_rng().standard_normal((20 + number, 3))
        return pd.DataFrame(x, columns=COLUMNS).assign(t=x @ FACTORS, w=x[:, 0] ** 2)

    def frame(self) -> Any:
        meta = pd.DataFrame({name: [0.0] for name in [*COLUMNS, "t", "w"]}).iloc[:0]
        return dd.from_map(self.read, range(PARTS), meta=meta)

    def delayed(self) -> Any:
        return dd.from_delayed([delayed(self.read, pure=False)(k) for k in range(PARTS)], verify_meta=False)

    def array(self) -> Any:
        blocks = [delayed(self.read, pure=False)(k).to_numpy() for k in range(PARTS)]
        return da.concatenate([da.from_delayed(block, (20 + k, 5), float) for k, block in enumerate(blocks)])


def filtered(frame: Any) -> Any:
    return frame[frame["a"] > 0]


def split(frame: Any) -> list[tuple[Any, Any, Any]]:
    return [(part[COLUMNS], part["t"], part["w"]) for part in frame.random_split([0.7, 0.3], random_state=0)]


CUTS: dict[str, Callable[[Source], list[tuple[Any, Any, Any]]]] = {
    "columns of one": lambda s: [((f := s.frame())[COLUMNS], f["t"], f["w"])],
    "one column as a table": lambda s: [((f := s.frame())[COLUMNS], f[["t"]], f["w"])],
    "filtered": lambda s: [((f := filtered(s.frame()))[COLUMNS], f["t"], f["w"])],
    "changed": lambda s: [((f := s.frame())[COLUMNS] * 1.0, f["t"] + 0, f["w"])],
    "through map_partitions": lambda s: [((f := s.frame()).map_partitions(lambda p: p[COLUMNS]), f["t"], f["w"])],
    "arrays, each optimized when it is made": lambda s: [
        ((f := s.frame())[COLUMNS].values, f["t"].values, f["w"].values)
    ],
    "filtered arrays": lambda s: [((f := filtered(s.frame()))[COLUMNS].values, f["t"].values, f["w"].values)],
    "table and arrays": lambda s: [((f := s.frame())[COLUMNS], f["t"].values, f["w"])],
    "array and columns": lambda s: [((f := s.frame())[COLUMNS].values, f["t"], f["w"].values)],
    "delayed": lambda s: [((f := s.delayed())[COLUMNS], f["t"], f["w"])],
    "delayed, arrays": lambda s: [((f := s.delayed())[COLUMNS].values, f["t"].values, f["w"].values)],
    "delayed, table and array": lambda s: [((f := s.delayed())[COLUMNS], f["t"].values, f["w"])],
    "slices of an array": lambda s: [((x := s.array())[:, :3], x[:, 3], x[:, 4])],
    "scaled slices": lambda s: [(((x := s.array())[:, :3] - 0.0) / 1.0, x[:, 3] + 0, x[:, 4])],
    "validation of the same": lambda s: split(s.frame()),
}


def columns(tables: list[tuple[Any, Any, Any]]) -> list[tuple[Any, Any, Any]]:
    """X, y and weights of each partition, computed at once as a stage pass does."""
    partitions = partitions_of(*(Table(*table) for table in tables))
    rows = [row for found in partitions for row in zip(found.x, found.y, found.weights or (), strict=True)]
    return list(dask.compute(*rows, scheduler="synchronous"))


@pytest.mark.parametrize("cut", CUTS)
def test_what_is_cut_from_one_source_is_read_once_and_stays_paired(cut: str) -> None:
    source = Source()
    tables = CUTS[cut](source)
    source.reads = [0] * PARTS
    found = columns(tables)
    assert source.reads == [1] * PARTS
    assert len(found) == PARTS * len(tables)
    for x, y, weights in found:
        x = np.asarray(x)
        np.testing.assert_allclose(np.asarray(y).ravel(), x @ FACTORS)
        np.testing.assert_allclose(np.asarray(weights), x[:, 0] ** 2)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """Two tables alike, each of twelve files."""
    folder = tmp_path_factory.mktemp("stored")
    write(folder / "one", 8)
    shutil.copytree(folder / "one", folder / "other")
    return dd.read_parquet(folder / "one"), dd.read_parquet(folder / "other")


def write(folder: Path, wide: int) -> None:
    """Twelve files of which Dask's optimizer merges more, the fewer of their columns are wanted."""
    folder.mkdir()
    for number in range(12):
        x = np.random.default_rng(number).standard_normal((10 + number, 3))
        table = pd.DataFrame(x, columns=COLUMNS).assign(t=x @ FACTORS, w=x[:, 0] ** 2)
        table.assign(**{f"z{column}": 0.0 for column in range(wide)}).to_parquet(folder / f"{number:02}.parquet")


@pytest.mark.parametrize(
    "cut",
    [
        lambda f, other, all_: (f[all_], f["t"], f["w"]),
        lambda f, other, all_: (f[COLUMNS], f["t"], f["w"]),
        lambda f, other, all_: (f[all_].values, f["t"].values, f["w"].values),
        lambda f, other, all_: (f[all_], f["t"].values, f[["w"]]),
        lambda f, other, all_: (f[all_], other["t"], f["w"]),
        lambda f, other, all_: (f[COLUMNS], other["t"].repartition(npartitions=5), f["w"].values),
    ],
    ids=["all", "few", "arrays", "table and array", "two sources", "other partitions"],
)
def test_rows_are_paired_whatever_files_the_optimizer_merges(cut: Any, stored: tuple[Any, Any]) -> None:
    found = columns([cut(*stored, [*COLUMNS, *(f"z{column}" for column in range(8))])])
    assert 1 < len(found) <= 12
    assert sum(len(x) for x, _, _ in found) == sum(10 + number for number in range(12))
    for x, y, weights in found:
        x = np.asarray(x)[:, :3]
        np.testing.assert_allclose(np.asarray(y), x @ FACTORS)
        np.testing.assert_allclose(np.asarray(weights).ravel(), x[:, 0] ** 2)


def test_rows_of_unknown_partitions_are_paired_by_their_position() -> None:
    x = da.from_array(np.arange(30.0).reshape(-1, 1), chunks=((5, 0, 12, 13), 1))
    y = da.from_array(np.arange(30.0), chunks=((9, 21),))
    for values in (x, y):
        values._chunks = (tuple(np.nan for _ in values.chunks[0]), *values.chunks[1:])
    (partitions,) = partitions_of(Table(x, y))
    for left, right in zip(*dask.compute(list(partitions.x), list(partitions.y), scheduler="sync"), strict=True):
        np.testing.assert_array_equal(left[:, 0], right)
