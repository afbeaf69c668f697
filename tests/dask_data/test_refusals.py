"""What cannot be trained on is refused by row and column, or by partition, with the remedy; and leaves nothing behind."""

from collections.abc import Callable
from typing import Any

import dask.array as da
import dask.bag
import numpy as np
import pytest
import scipy.sparse
from dask import delayed
from distributed import Client

import scaleml
from scaleml import LinearModel

RNG = np.random.default_rng(5)
ROWS = 200
X = RNG.standard_normal((ROWS, 6))
Y = np.array(["ant", "bee"])[(X[:, 0] > 0).astype(int)]
NUMBERS = X @ np.arange(6.0)
CHUNKS = (80, 70, 50)
REGRESSION = LinearModel("squared_error")

pytestmark = pytest.mark.usefixtures("nothing_left")


def spoilt(values: Any, place: Any, value: Any) -> Any:
    copy = np.array(values)
    copy[place] = value
    return copy


def table(values: Any = X, chunks: Any = CHUNKS) -> Any:
    return da.from_array(values, chunks=(chunks, -1))


def column(values: Any = Y, chunks: Any = CHUNKS) -> Any:
    return da.from_array(values, chunks=chunks)


def bag(values: Any) -> Any:
    return dask.bag.from_sequence(values.tolist(), npartitions=2)


def unknown(array: Any) -> Any:
    out = array.copy()
    out._chunks = (tuple(np.nan for _ in array.chunks[0]), *array.chunks[1:])
    return out


def mixed(block: Any, block_info: Any = None) -> Any:
    first = block_info[0]["chunk-location"][0] == 0
    return block if first else scipy.sparse.csr_matrix(block)


def narrower(block: Any, block_info: Any = None) -> Any:
    return block[:, : 6 - block_info[0]["chunk-location"][0]]


def of_two_types(block: Any, block_info: Any = None) -> Any:
    return block if block_info[0]["chunk-location"][0] == 0 else np.arange(len(block))


MISTAKES: dict[str, Callable[[], tuple[dict[str, Any], type[Exception], str]]] = {
    "NaN": lambda: ({"X": table(spoilt(X, (97, 2), np.nan))}, ValueError, r"X .*row 97, column 2.*SimpleImputer"),
    "infinite in CSR": lambda: (
        {"X": table(spoilt(X, (199, 5), np.inf)).map_blocks(scipy.sparse.csr_matrix)},
        ValueError,
        r"X .*row 199, column 5.*SimpleImputer",
    ),
    "NaN, sizes unknown": lambda: (
        {"X": unknown(table(spoilt(X, (97, 2), np.nan)))},
        ValueError,
        r"partition 1 of X is not finite at row 17, column 2",
    ),
    "too large": lambda: (
        {"X": table(spoilt(X, (3, 1), 1e300))},
        ValueError,
        r"row 3, column 1.*too large for float32",
    ),
    "NaN label": lambda: (
        {"y": column(spoilt(np.arange(200) % 2.0, 107, np.nan))},
        ValueError,
        "y is missing at row 107.*drop",
    ),
    "None label": lambda: (
        {"y": column(spoilt(Y.astype(object), 107, None))},
        ValueError,
        "y is missing at row 107.*drop",
    ),
    "real labels": lambda: ({"y": column(NUMBERS)}, ValueError, r"real number .* \(row \d+\).*squared_error"),
    "one class": lambda: ({"y": column(np.ones(ROWS))}, ValueError, "one class only"),
    "labels of two types": lambda: (
        {"y": column(Y.astype(object)).map_blocks(of_two_types, dtype=object)},
        TypeError,
        r"no common order.*astype\(str\)",
    ),
    "targets": lambda: ({"model": REGRESSION, "y": column(Y)}, TypeError, "y has dtype <U3.*train a classifier"),
    "NaN target": lambda: (
        {"model": REGRESSION, "y": column(spoilt(NUMBERS, 150, np.nan))},
        ValueError,
        "y is nan at row 150",
    ),
    "negative weight": lambda: (
        {"sample_weight": column(spoilt(np.ones(ROWS), 81, -2))},
        ValueError,
        "sample_weight is -2.0 at row 81",
    ),
    "no weight": lambda: ({"sample_weight": column(np.zeros(ROWS))}, ValueError, "0 everywhere"),
    "columns differ": lambda: (
        {"X": table().map_blocks(narrower, dtype=float)},
        ValueError,
        r"\[4, 5, 6\] columns: all must have the same",
    ),
    "dense and CSR": lambda: ({"X": table().map_blocks(mixed, dtype=float)}, ValueError, "some .*CSR and some dense"),
    "other rows": lambda: ({"y": column(Y[:-1], 50)}, ValueError, "X has 200 rows but y has 199"),
    "other partitions and rows, unknown": lambda: (
        {"X": unknown(table()), "y": unknown(column(Y[:-1], 100))},
        ValueError,
        r"partition 2 of X has 50 rows but that of y has 49",
    ),
    "other rows in a partition": lambda: (
        {"X": unknown(table()), "y": unknown(column(Y, (80, 60, 60)))},
        ValueError,
        r"partition [12] of X has \d\d rows but that of y has 60",
    ),
    "NumPy y, X unknown": lambda: ({"X": unknown(table()), "y": Y}, ValueError, r"X\.compute_chunk_sizes\(\)"),
    "no rows": lambda: (
        {"X": table()[column(X[:, 0]) > 99], "y": column()[column(X[:, 0]) > 99]},
        ValueError,
        "no rows",
    ),
    "one dimension": lambda: ({"X": column(X[:, 0])}, ValueError, r"X\.reshape\(-1, 1\)"),
    "text": lambda: ({"X": table(X.astype(str))}, TypeError, "X has dtype <U.*OneHotEncoder"),
    "delayed": lambda: ({"y": delayed(Y)}, TypeError, "y is a dask.delayed.Delayed.*from_delayed"),
    "list of delayed": lambda: ({"X": [delayed(X)]}, TypeError, "X is a list of dask.delayed.*from_delayed"),
    "bag": lambda: ({"X": bag(X)}, TypeError, r"X is a dask.bag.*X\.to_dataframe"),
    "bag of labels": lambda: ({"y": bag(Y), "X": X}, TypeError, r"y is a dask.bag.*y\.to_dataframe"),
    "text among numbers": lambda: (
        {"model": REGRESSION, "y": column(spoilt(NUMBERS.astype(object), 81, "many"))},
        TypeError,
        r"holds 'many' \(row 81\).*to_numeric.*train a classifier",
    ),
    "y is None": lambda: ({"y": None}, ValueError, "y is None"),
    "validation, other columns": lambda: (
        {"validation": (table(X[:, :5]), column())},
        ValueError,
        "validation X has 5 columns, X has 6",
    ),
    "validation, other labels": lambda: (
        {"validation": (table(), column(spoilt(Y, 9, "cow")))},
        ValueError,
        "validation y holds .*cow.*none of the training classes",
    ),
    "nothing to hold out": lambda: ({"validation": 1e-9}, ValueError, "leaves none on one side"),
    "more shards than rows": lambda: ({"shards": 1000}, ValueError, "200 training rows for 1000 shards"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_refused(name: str, client: Client) -> None:
    changed, kind, words = MISTAKES[name]()
    arguments = {"model": LinearModel(), "X": table(), "y": column(), "client": client, "epochs": 1, **changed}
    with pytest.raises(kind, match=words):
        scaleml.start(**arguments)


def test_an_error_of_the_users_own_tasks_comes_through(client: Client) -> None:
    def broken(block: Any) -> Any:
        raise FileNotFoundError("part-7.parquet is gone")

    with pytest.raises(FileNotFoundError, match="part-7"):
        scaleml.train(LinearModel(), table().map_blocks(broken, dtype=float), column(), client=client)
