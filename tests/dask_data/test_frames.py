"""Dask dataframes and pandas by the same rules: numbers of any kind are converted, the rest refused with the remedy."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from distributed import Client

import scaleml
from dask_data import oracle
from scaleml import AllReduce, LinearModel

dd = pytest.importorskip("dask.dataframe", reason="Dask's dataframes need pyarrow")

RNG = np.random.default_rng(2)
ROWS = 300
SIZES = (100, 100, 100)
LETTERS = np.array(["ant", "bee", "cow"])[RNG.integers(0, 3, ROWS)]

pytestmark = pytest.mark.usefixtures("nothing_left")


def frame() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "plain": RNG.standard_normal(ROWS),
            "integer": pd.array(RNG.integers(0, 9, ROWS), "Int64"),
            "float": pd.array(RNG.standard_normal(ROWS), "Float32"),
            "flag": pd.array(RNG.random(ROWS) > 0.5, "boolean"),
            "bool": RNG.random(ROWS) > 0.5,
        }
    )


TARGETS = {
    "text": LETTERS,
    "categories": pd.Categorical(LETTERS),
    "nullable": pd.array(RNG.integers(0, 3, ROWS), "Int64"),
    "boolean": pd.array(RNG.random(ROWS) > 0.5, "boolean"),
}


def both(table: pd.DataFrame) -> tuple[Any, Any]:
    """X and y of a Dask dataframe whose last column is y."""
    collection = dd.from_pandas(table, npartitions=3, sort=False)
    return collection[collection.columns[:-1].tolist()], collection["y"]


@pytest.mark.parametrize("kind", TARGETS)
def test_dataframes_give_the_bits_of_their_numbers(kind: str, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    table = frame().assign(y=TARGETS[kind])
    X, y = both(table)
    run = scaleml.train(LinearModel(), X, y, epochs=2, batch_size=32, client=client)
    plain = table.drop(columns="y").to_numpy(dtype="f8")
    labels = np.asarray(table["y"].to_numpy(), dtype=str if kind in ("text", "categories") else int)
    expected = oracle.params(monkeypatch, LinearModel(), plain, labels, SIZES, row_nbytes=20, strategy=AllReduce())
    np.testing.assert_array_equal(run.params, expected)
    assert [str(label) for label in run.model.classes] == [str(label) for label in np.unique(table["y"].to_numpy())]


def test_dataframes_that_are_made_of_one_are_computed_once(client: Client, tmp_path: Path) -> None:
    folder = str(tmp_path)  # workers know nothing of this file

    def read(number: int) -> pd.DataFrame:
        with open(f"{folder}/{number}", "a") as file:
            file.write("read ")
        rows = np.arange(20.0) + number
        return pd.DataFrame({"a": rows, "b": -rows, "w": rows + 1, "y": rows % 2 == 0})

    table = dd.from_map(read, range(4), meta=read(0).iloc[:0])
    (tmp_path / "0").unlink()
    X, y = table[["a", "b"]], table["y"]
    run = scaleml.train(
        *(LinearModel(), X, y),
        sample_weight=table["w"],
        validation=(X, y, table["w"]),
        epochs=1,
        batch_size=8,
        client=client,
    )
    assert run.plan.rows == 80
    assert [path.read_text() for path in sorted(tmp_path.iterdir())] == ["read "] * 4


def test_x_and_y_of_one_parquet_file_stay_paired(client: Client, tmp_path: Path) -> None:
    """Dask merges files by how much of them is wanted: little for y alone, most for X."""
    numbers = RNG.standard_normal((500, 21))
    table = pd.DataFrame(numbers, columns=[f"c{column}" for column in range(21)])
    for start in range(0, 500, 50):
        table[start : start + 50].to_parquet(tmp_path / f"{start:03}.parquet")
    stored = dd.read_parquet(tmp_path)
    run = scaleml.train(
        LinearModel("squared_error"), stored.drop(columns="c20"), stored["c20"], epochs=2, batch_size=32, client=client
    )
    assert run.plan.rows == 500
    model = run.model
    assert model.loss(stored.drop(columns="c20"), stored["c20"]) == pytest.approx(
        model.loss(numbers[:, :20].astype("f4"), numbers[:, 20]), rel=1e-5
    )


def test_regression_and_weights_of_a_dataframe(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = RNG.random(ROWS)
    table = frame().assign(w=weights, y=pd.array(RNG.standard_normal(ROWS), "Float64"))
    collection = dd.from_pandas(table, npartitions=3, sort=False)
    model = LinearModel("squared_error")
    run = scaleml.train(
        model,
        collection[["plain", "float"]],
        collection[["y"]],
        sample_weight=collection["w"],
        epochs=2,
        batch_size=32,
        client=client,
    )
    expected = oracle.params(
        monkeypatch,
        model,
        table[["plain", "float"]].to_numpy("f8"),
        table["y"].to_numpy("f8"),
        SIZES,
        row_nbytes=8,
        strategy=AllReduce(),
        sample_weight=weights,
    )
    np.testing.assert_array_equal(run.params, expected)


def test_pandas_trains_as_its_numbers(client: Client) -> None:
    table = frame()
    runs = [
        scaleml.train(LinearModel(), X, y, epochs=1, client=client)
        for X, y in [(table, pd.Series(TARGETS["nullable"])), (table.to_numpy("f8"), TARGETS["nullable"].to_numpy(int))]
    ]
    np.testing.assert_array_equal(runs[0].params, runs[1].params)
    assert runs[0].model.classes.dtype.kind == "i"


def spoilt(column: str, value: Any) -> pd.DataFrame:
    table = frame()
    table.loc[150, column] = value
    return table


MISTAKES = {
    "missing": (lambda: spoilt("integer", pd.NA), ValueError, "not finite at row .*, column 'integer'.*SimpleImputer"),
    "NaN": (lambda: spoilt("plain", np.nan), ValueError, "not finite at row .*, column 'plain'.*SimpleImputer"),
    "text": (lambda: frame().assign(colour="red"), TypeError, "cannot take: text in 'colour': encode it"),
    "categories": (
        lambda: frame().assign(colour=pd.Categorical(LETTERS)),
        TypeError,
        "categories in 'colour': encode.*get_dummies",
    ),
    "dates": (lambda: frame().assign(day=pd.Timestamp(0)), TypeError, "dates in 'day': pass numbers"),
}


@pytest.mark.parametrize("kind", MISTAKES)
@pytest.mark.parametrize("storage", ["pandas", "dask"])
def test_what_is_no_number_is_refused(kind: str, storage: str, client: Client) -> None:
    make, error, words = MISTAKES[kind]
    table = make().assign(y=LETTERS)
    X, y = both(table) if storage == "dask" else (table.drop(columns="y"), table["y"])
    with pytest.raises(error, match=words):
        scaleml.start(LinearModel(), X, y, client=client)


@pytest.mark.parametrize("storage", ["pandas", "dask"])
@pytest.mark.parametrize("dtype", ["Int64", "string", "str", "category"])
def test_missing_labels_are_refused(dtype: str, storage: str, client: Client) -> None:
    labels = pd.Series(TARGETS["nullable"] if dtype == "Int64" else LETTERS).astype(dtype)
    labels[7] = None
    table = frame().assign(y=labels)
    X, y = both(table) if storage == "dask" else (table.drop(columns="y"), table["y"])
    with pytest.raises(ValueError, match="y is missing at row 7"):
        scaleml.start(LinearModel(), X, y, client=client)


def test_numpy_labels_need_known_lengths(client: Client) -> None:
    X, _ = both(frame().assign(y=LETTERS))
    with pytest.raises(ValueError, match=r"X\.to_dask_array\(\)\.compute_chunk_sizes\(\)"):
        scaleml.start(LinearModel(), X, LETTERS, client=client)
    run = scaleml.train(
        LinearModel(), X.astype("f8").to_dask_array().compute_chunk_sizes(), LETTERS, epochs=1, client=client
    )
    assert run.state == "finished"


def test_partitions_and_validation_data_with_other_columns_are_refused(client: Client) -> None:
    X, y = both(frame().assign(y=LETTERS))
    parts, turned = [X.get_partition(k).compute() for k in range(3)], list(reversed(X.columns))
    parts[1] = parts[1][turned]
    lying = dd.from_map(lambda k: parts[k], range(3), meta=parts[0].iloc[:0])
    with pytest.raises(ValueError, match=r"partition 1 of X has the columns 'bool', .*, in another order"):
        scaleml.start(LinearModel(), lying, y, client=client)
    with pytest.raises(ValueError, match=r"the validation X has the columns 'bool', .*, X has 'plain'"):
        scaleml.start(LinearModel(), X, y, validation=(X[turned], y), client=client)


def test_a_series_is_no_table(client: Client) -> None:
    X, y = both(frame().assign(y=LETTERS))
    with pytest.raises(ValueError, match=r"X\.to_frame\(\)"):
        scaleml.start(LinearModel(), X["plain"], y, client=client)
