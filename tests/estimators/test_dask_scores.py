"""Scores of Dask collections are scikit-learn's of the same rows: the same values, the same refusals."""

from __future__ import annotations

import warnings
from typing import Any

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix
from sklearn.exceptions import UndefinedMetricWarning

from scaleml.linear_model import SGDClassifier, SGDRegressor
from scaleml.neural_network import MLPClassifier, MLPRegressor

ROWS, CHUNKS = 60, (25, 0, 20, 15)
X = np.random.default_rng(0).standard_normal((ROWS, 3))
CODES = np.digitize(X[:, 0], [-0.5, 0.5])
WEIGHTS = np.random.default_rng(1).uniform(0, 3, ROWS)
FITTED = {
    "numbers": SGDClassifier(random_state=0).fit(X, CODES),
    "text": SGDClassifier(random_state=0).fit(X, np.array(["a", "b", "c"])[CODES]),
    "several": MLPClassifier((3,), max_iter=5, tol=9, n_iter_no_change=1, random_state=0).fit(X, (X > 0).astype(int)),
    "regression": SGDRegressor(random_state=0).fit(X, X @ [1.0, 2, 3] + 100),
    "targets": MLPRegressor(hidden_layer_sizes=(3,), max_iter=5, tol=9, n_iter_no_change=1, random_state=0).fit(
        X, X[:, :2] * 3
    ),
}
pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:invalid value encountered in cast"),  # by scikit-learn, of NaN
]
AT = np.arange(ROWS) == 30


def put(values: Any, value: Any, dtype: Any = None) -> Any:
    """One other value, in the last block but one."""
    changed = np.array(values, dtype)
    changed[30] = value
    return changed


def cases(name: str) -> dict[str, tuple[Any, Any, Any]]:
    """X, y and weights."""
    y = FITTED[name].predict(X)
    if name == "regression":
        y = y + np.random.default_rng(2).standard_normal(ROWS)
    elif y.ndim == 1:
        y = np.concatenate([y[:40], y[:20]])
    else:
        y = np.concatenate([y[:40], y[:20]])
    found = {
        "as it is": (X, y, None),
        "weights": (X, y, WEIGHTS),
        "weights of 0 and 1": (X, y, (np.arange(ROWS) > 30) * 1.0),
        "negative": (X, y, put(WEIGHTS, -2.0)),
        "no weight": (X, y, np.zeros(ROWS)),
        "NaN weight": (X, y, put(WEIGHTS, np.nan)),
        "infinite weight": (X, y, put(WEIGHTS, np.inf)),
        "weights of integers": (X, y, np.arange(ROWS)),
        "weights of booleans": (X, y, np.arange(ROWS) > 30),
        "one row": (X[:1], y[:1], None),
        "one row of some": (X, y, AT * 1.0),
        "two rows": (X[:2], y[:2], None),
        "constant y": (X, np.repeat(np.floor(y[:1]) if y.dtype.kind == "f" else y[:1], ROWS, axis=0), None),
        "other columns": (X, np.column_stack([CODES] * 3), None) if name != "several" else (X, y[:, :2], None),
        "NaN in X": (put(X, np.nan), y, None),
        "a column of y": (X, y.reshape(ROWS, -1), None),
        "two columns of weights": (X, y, np.column_stack([WEIGHTS, WEIGHTS])),
    }
    if y.dtype.kind in "ifb" and y.ndim == 1:
        found |= {
            "NaN in y": (X, put(y, np.nan, float), None),
            "infinite y": (X, put(y, np.inf, float), None),
            "None in y": (X, put(y, None, object), None),
            "NaN in y, weights": (X, put(y, np.nan, float), WEIGHTS),
            "real numbers": (X, y + 0.25, None),
            "text": (X, np.array(["u", "v", "w"])[CODES], None),
            "other labels": (X, y.astype(float) + 10, None),
        }
    if y.dtype.kind == "U":
        found |= {
            "objects": (X, y.astype(object), None),
            "None in y": (X, put(y, None, object), None),
            "mixed": (X, put(y, 7, object), None),
            "codes": (X, CODES, None),
            "longer": (X, put(y, "zebra", "U9"), WEIGHTS),
        }
    return found


def outcome(call: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UndefinedMetricWarning)
        try:
            return call()
        except (ValueError, TypeError, UndefinedMetricWarning) as error:
            return error


def chunked(values: Any) -> Any:
    chunks = CHUNKS if len(values) == ROWS else -1
    return None if values is None else da.from_array(values, chunks=(chunks, *(-1 for _ in values.shape[1:])))


@pytest.mark.parametrize("name", FITTED)
def test_scores_of_dask_arrays(name: str) -> None:
    model = FITTED[name]
    with dask.config.set(scheduler="sync"):
        for case, given in cases(name).items():
            want = outcome(lambda given=given: model.score(*given))
            lazy = [None if part is None else chunked(part) for part in given]
            kinds = [lazy]
            if case in ("weights", "NaN in y"):
                kinds.append([lazy[0].map_blocks(csr_matrix), *lazy[1:]])
            for got in (outcome(lambda given=given: model.score(*given)) for given in kinds):
                if isinstance(want, Exception):
                    assert isinstance(got, ValueError | TypeError | UndefinedMetricWarning), (case, want, got)
                    assert isinstance(want, UndefinedMetricWarning) == isinstance(got, UndefinedMetricWarning), case
                else:
                    assert got == pytest.approx(want, rel=1e-9, nan_ok=True), (case, want, got)


@pytest.mark.parametrize("name", ["numbers", "text", "regression"])
def test_scores_of_dask_dataframes(name: str) -> None:
    model = FITTED[name]
    with dask.config.set(scheduler="sync"):
        for case, (x, y, weights) in cases(name).items():
            if case == "mixed":  # becomes text in a dataframe
                continue
            if y.ndim > 1 or (weights is not None and weights.ndim > 1) or len(x) < ROWS:
                continue
            want = outcome(lambda given=(x, y, weights): model.score(*given))
            table = pd.DataFrame(x).assign(y=y, w=1.0 if weights is None else weights)
            frame = dd.from_pandas(table, npartitions=3)
            given = frame[[0, 1, 2]], frame["y"], None if weights is None else frame["w"]
            got = outcome(lambda given=given: model.score(*given))
            if isinstance(want, Exception):
                assert isinstance(got, ValueError | TypeError), (case, want, got)
            else:
                assert got == pytest.approx(want, rel=1e-9), (case, want, got)
