"""Data and labels of any kind are taken: what is no mistake."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse

from scaleml.data.source import array_source

RNG = np.random.default_rng(3)
ROWS = 60
X = RNG.standard_normal((ROWS, 4))
LABELS = np.array(["cat", "dog"])[(X[:, 0] > 0).astype(int)]
NUMBERS = X @ np.arange(4.0)


# What is no mistake.


@pytest.mark.parametrize("kind", ["list", "float16", "int", "bool", "pandas", "nullable", "CSC", "Fortran"])
def test_data_of_any_real_kind_is_taken(kind: str) -> None:
    values = RNG.integers(0, 2, (20, 3))
    x = {
        "list": values.tolist(),
        "float16": values.astype("f2"),
        "int": values,
        "bool": values.astype(bool),
        "pandas": pd.DataFrame(values),
        "nullable": pd.DataFrame(values).astype("Int64"),
        "CSC": scipy.sparse.csc_matrix(values),
        "Fortran": np.asfortranarray(values),
    }[kind]
    data = array_source(x, values[:, 0], classifier=True)
    got = data.x.toarray() if hasattr(data.x, "toarray") else data.x
    np.testing.assert_array_equal(got, values)


@pytest.mark.parametrize(
    "labels",
    [["no", "yes"], [False, True], [-1, 1], [1.0, 2.0], [b"a", b"b"], [10, 20, 30], np.array(["a", "b"], object)],
)
def test_labels_of_any_kind_become_codes_and_come_back(labels: Any) -> None:
    y = np.asarray(labels)[RNG.integers(0, len(labels), ROWS)]
    data = array_source(X, y, classifier=True)
    assert data.classes[data.y].tolist() == y.tolist()
    assert data.task == ("binary" if len(labels) == 2 else "multiclass")
    assert data.n_outputs == (1 if len(labels) == 2 else 3)


def test_a_column_is_a_vector() -> None:
    data = array_source(X, NUMBERS.reshape(-1, 1), np.ones((ROWS, 1)), classifier=False)
    assert (data.y.shape, data.weights.shape, data.n_outputs) == ((ROWS,), (ROWS,), 1)


def test_pandas_columns_are_taken_by_position() -> None:
    index = RNG.permutation(ROWS)
    data = array_source(
        pd.DataFrame(X, index=index),
        pd.Series(LABELS, index=index),
        pd.Series(NUMBERS**2, index=index),
        classifier=True,
    )
    np.testing.assert_array_equal(data.classes[data.y], LABELS)
    np.testing.assert_array_equal(data.weights, NUMBERS**2)
