"""All columns that a model cannot take are named in one error; pandas, looked at value by value, is the oracle."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from distributed import Client, LocalCluster

import scaleml
from scaleml import LinearModel
from scaleml.data.bad_columns import listed, not_finite
from scaleml.data.columns import as_matrix

N = 60
Y = np.arange(N) % 2


def table() -> pd.DataFrame:
    random = np.random.default_rng(0)
    made = pd.DataFrame(
        {
            "age": random.normal(40, 10, N),
            "city": random.choice(["Oslo", "Rome"], N),
            "day": pd.date_range("2020", periods=N),
            "ratio": random.random(N),
            "kind": pd.Categorical(random.choice(["a", "b"], N)),
            "took": pd.to_timedelta(random.integers(1, 9, N), unit="h"),
            "mix": pd.Series([1, "x"] * (N // 2), dtype=object),
            "count": pd.array([*range(N - 2), None, None], dtype="Int64"),
            "one": 1.0,
            "wave": random.random(N) + 1j,
        }
    )
    made.loc[[3, 7, 9], "age"] = np.nan
    made.loc[5, "ratio"] = np.inf
    return made


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


def problems(message: str) -> dict[str, str]:
    """Return what the error says of each column: the words before its name."""
    found = {}
    for group in message.partition(": ")[2].split("; "):
        for kind in (
            "text",
            "dates",
            "categories",
            "durations",
            "mixed values",
            "complex numbers",
            "missing values",
            "infinite values",
        ):
            if group.startswith(f"{kind} in "):
                found |= dict.fromkeys(re.findall(r"'(\w+)'", group.partition(": ")[0]), kind)
    return found


KINDS = {
    "city": "text",
    "day": "dates",
    "kind": "categories",
    "took": "durations",
    "mix": "mixed values",
    "wave": "complex numbers",
    "age": "missing values",
    "count": "missing values",
    "ratio": "infinite values",
}


def test_all_of_a_frame_with_what_to_do() -> None:
    with pytest.raises(TypeError) as caught:
        scaleml.train(LinearModel(), table(), Y)
    assert problems(str(caught.value)) == KINDS  # a constant column is no mistake
    for remedy in (
        "OneHotEncoder",
        r"\.dt\.year",
        "SimpleImputer",
        "to_numeric",
        "total_seconds",
        "real and imaginary",
    ):
        assert re.search(remedy, str(caught.value)), remedy
    assert "'age' (3, from row 3 on), 'count' (2, from row 58 on)" in str(caught.value)
    assert "'ratio' (1, from row 5 on)" in str(caught.value)


@pytest.mark.parametrize("on", ["a cluster", "this process"])
def test_all_of_a_dask_dataframe(on: str, client: Client) -> None:
    from dask import dataframe as dd

    X = dd.from_pandas(table().drop(columns="wave"), npartitions=1)
    with pytest.raises(TypeError, match="by its first partition") as caught:
        scaleml.train(LinearModel(), X, Y, client=client if on == "a cluster" else None)
    expected = {name: kind for name, kind in KINDS.items() if name != "wave"}
    if str(dd.from_pandas(table()[["mix"]], npartitions=1).dtypes["mix"]) != "object":
        expected["mix"] = "text"  # Dask has made it that
    assert problems(str(caught.value)) == expected


@pytest.mark.parametrize("storage", ["pandas", "NumPy", "Dask"])
def test_all_that_is_missing_or_infinite_where_all_are_numbers(storage: str, client: Client) -> None:
    X: Any = table()[["one", "age", "ratio"]]
    if storage == "NumPy":
        X = X.to_numpy()
    elif storage == "Dask":
        from dask import dataframe as dd

        X = dd.from_pandas(X, npartitions=1)
    names = ("1", "2") if storage == "NumPy" else ("'age'", "'ratio'")
    words = rf"at row 3, column {names[0]} .*missing values in {names[0]} \(3, from row 3 on\).*infinite values in {names[1]} \(1"
    y: Any = Y
    if storage == "Dask":
        import dask.array as da

        y = da.from_array(Y, chunks=N)
    with pytest.raises(ValueError, match=words):
        scaleml.train(LinearModel(), X, y, client=client)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("sparse", [False, True])
def test_counts_and_first_rows_are_those_of_numpy(seed: int, sparse: bool) -> None:
    random = np.random.default_rng(seed)
    x = random.normal(size=(int(random.integers(1, 50)), int(random.integers(1, 9))))
    for value in (np.nan, np.inf, -np.inf, 1e300):
        x[random.random(x.shape) < 0.05] = value
    x[0, 0] = np.nan
    with np.errstate(over="ignore"):
        bad = ~np.isfinite(x.astype("f4"))
    message = str(
        not_finite(
            scipy.sparse.csr_matrix(x) if sparse else x, "float32", "X", 100, [f"c{i}" for i in range(x.shape[1])]
        )
    )
    row = int(np.flatnonzero(bad.any(axis=1))[0])
    assert message.startswith(f"X is not finite at row {100 + row}, column 'c{int(np.flatnonzero(bad[row])[0])}'")
    told = {
        (int(column), what): int(count)
        for what, group in re.findall(r"(missing|infinite|too large for float32) values in ([^:]*):", message)
        for column, count in re.findall(r"'c(\d+)' \((\d+), from row", group)
    }
    large = bad & np.isfinite(x)
    expected = {
        (column, what): int(mask[:, column].sum())
        for what, mask in (("missing", np.isnan(x)), ("infinite", np.isinf(x)), ("too large for float32", large))
        for column in range(x.shape[1])
        if mask[:, column].any()
    }
    assert told == expected
    for column in np.flatnonzero(bad.any(axis=0)):
        assert f"from row {100 + int(np.flatnonzero(bad[:, column])[0])} on" in message


def test_many_are_counted() -> None:
    assert listed(["a", 1]) == "'a', 1"
    assert listed([f"c{i}" for i in range(40)]).endswith("'c11' and 28 more")
    with pytest.raises(TypeError, match="'c11' and 28 more"):
        as_matrix(pd.DataFrame({f"c{i}": ["x"] for i in range(40)}), "X")
