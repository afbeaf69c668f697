"""Lazy predictions by estimators: of the model as it was, whatever it learns afterwards; of dataframes from files."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone, is_classifier
from sklearn.datasets import make_classification

from scaleml.linear_model import SGDClassifier, SGDRegressor
from scaleml.neural_network import MLPClassifier, MLPRegressor

dd = pytest.importorskip("dask.dataframe", reason="Dask's dataframes need pyarrow")
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, CODES = make_classification(
    240, 4, n_informative=3, n_redundant=0, n_classes=3, n_clusters_per_class=1, random_state=0
)
FRAME = pd.DataFrame(X, columns=list("abcd"))
METHODS = ("predict", "predict_proba", "decision_function")
ESTIMATORS = {
    "three classes": (SGDClassifier("log_loss", random_state=0), CODES),
    "two classes": (SGDClassifier("log_loss", random_state=0), np.array(["no", "yes"])[(CODES > 0).astype(int)]),
    "averaged": (SGDClassifier("log_loss", average=True, random_state=0), CODES),
    "batches": (SGDClassifier("log_loss", batch_size=16, random_state=0), CODES),
    "regressor": (SGDRegressor(random_state=0), X @ np.arange(4.0)),
    "averaged regressor": (SGDRegressor(average=True, random_state=0), X @ np.arange(4.0)),
    "perceptron": (MLPClassifier((5,), random_state=0), CODES),
    "perceptron of numbers": (MLPRegressor(hidden_layer_sizes=(5,), random_state=0), X @ np.arange(4.0)),
}


@pytest.fixture(autouse=True)
def here() -> Iterator[None]:
    with dask.config.set(scheduler="synchronous"):
        yield


def fitted(kind: str, table: Any = X) -> tuple[Any, Any]:
    """Trained for an epoch of the first rows; and the labels of all."""
    estimator, y = ESTIMATORS[kind]
    classes = {"classes": np.unique(y)} if is_classifier(estimator) else {}
    return clone(estimator).partial_fit(table[:60], y[:60], **classes), y


def same(found: Any, expected: Any) -> None:
    if np.asarray(expected).dtype.kind == "f":
        assert_allclose(found, expected, rtol=1e-6, atol=1e-9)
    else:
        assert_array_equal(found, expected)


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_what_is_asked_for_belongs_to_the_model_as_it_was(kind: str) -> None:
    estimator, y = fitted(kind)
    blocks = da.from_array(X, chunks=(100, -1))
    methods = [method for method in METHODS if hasattr(estimator, method)]
    before = {method: getattr(estimator, method)(X).copy() for method in methods}
    lazy = {method: getattr(estimator, method)(blocks) for method in methods}
    for _ in range(3):
        estimator.partial_fit(X[60:], y[60:][::-1])
    for layer in getattr(estimator, "coefs_", None) or [estimator.coef_]:
        layer *= 2
    for method in methods:
        same(lazy[method].compute(), before[method])
        same(getattr(estimator, method)(blocks).compute(), getattr(estimator, method)(X))


def like(kind: str, **settings: Any) -> tuple[Any, Any]:
    """A fitted estimator and its twin: the same weights, other settings."""
    one, _ = fitted(kind)
    return one, copy.deepcopy(one).set_params(**settings)


TWINS: dict[str, Callable[[], tuple[Any, Any]]] = {
    "activation": lambda: like("perceptron", activation="tanh"),
    "activation of a regressor": lambda: like("perceptron of numbers", activation="logistic"),
    "loss": lambda: like("three classes", loss="modified_huber"),
}


@pytest.mark.parametrize("kind", TWINS)
def test_models_of_equal_weights_keep_apart_when_computed_together(kind: str) -> None:
    twins = TWINS[kind]()
    method = "predict_proba" if is_classifier(twins[0]) else "predict"
    found = dask.compute(*(getattr(twin, method)(da.from_array(X, chunks=(100, -1))) for twin in twins))
    assert np.abs(found[0] - found[1]).max() > 1e-3
    for values, twin in zip(found, twins, strict=True):
        assert_allclose(values, getattr(twin, method)(X), rtol=1e-6)


def from_csv(folder: Path) -> Any:
    FRAME.to_csv(folder / "one.csv", index=False)
    return dd.read_csv(folder / "one.csv")


def from_parquet(folder: Path) -> Any:
    """Six small files, of which Dask would read several as one."""
    for number in range(6):
        part = FRAME.iloc[number * 40 : number * 40 + 40].assign(more=0.0, than=1, wanted=2)
        part.to_parquet(folder / f"{number}.parquet")
    return dd.read_parquet(folder)[list("abcd")]


FILES: dict[str, Callable[[Path], Any]] = {
    "CSV": from_csv,
    "Parquet": from_parquet,
    "from_map": lambda folder: dd.from_map(lambda _: FRAME, [0], meta=FRAME.iloc[:0]),
    "one partition, filtered": lambda folder: (frame := dd.from_pandas(FRAME, npartitions=1))[frame["a"] > -99],
}


@pytest.mark.parametrize("kind", FILES)
def test_dataframes_from_files_predict_in_their_own_partitions(kind: str, tmp_path: Path) -> None:
    frame = FILES[kind](tmp_path)
    for name in ("two classes", "perceptron"):
        estimator, _ = fitted(name, FRAME)
        for method in ("predict", "predict_proba"):
            found = getattr(estimator, method)(frame)
            assert found.numblocks[0] == frame.npartitions
            same(found.compute(), getattr(estimator, method)(FRAME))
        same(estimator.predict(frame).persist().compute(), estimator.predict(FRAME))
        joined = frame.assign(label=estimator.predict(frame)).compute()
        assert_array_equal(joined["label"], estimator.predict(joined[list("abcd")]))


def lying(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Any:
    """Partitions, of which the second is not what the dataframe says."""
    parts = [FRAME.iloc[:120], change(FRAME.iloc[120:])]
    return dd.from_map(lambda number: parts[number], [0, 1], meta=FRAME.iloc[:0])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda part: part[["b", "a", "c", "d"]], "has the columns 'b', 'a', 'c', 'd', in another order"),
        (lambda part: part.rename(columns={"b": "z"}), "lacks 'b' and has 'z'"),
        (lambda part: part.drop(columns="d"), "lacks 'd'"),
        (lambda part: part.assign(e=1.0), "has 'e'"),
    ],
    ids=["other order", "renamed", "missing", "more"],
)
def test_partitions_with_other_columns_are_refused(change: Any, words: str) -> None:
    estimator, y = fitted("two classes", FRAME)
    frame = lying(change)
    with pytest.raises(ValueError, match=f"a partition of X {words}"):
        estimator.predict(frame).compute()
    with pytest.raises(ValueError, match=f"a partition of X {words}"):
        estimator.score(frame, dd.from_pandas(pd.Series(y), npartitions=2))


def test_empty_partitions_may_hold_anything() -> None:
    frame = lying(lambda part: pd.DataFrame(columns=["a", "b"]))
    estimator, y = fitted("two classes", FRAME)
    assert_array_equal(estimator.predict(frame).compute(), estimator.predict(FRAME[:120]))
    labels = dd.from_map(lambda number: pd.Series(y[: 120 * (1 - number)]), [0, 1], meta=pd.Series(y[:0]))
    assert estimator.score(frame, labels) == pytest.approx(estimator.score(FRAME[:120], y[:120]))
