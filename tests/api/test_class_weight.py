"""Class weights of models: scikit-learn's classifiers with the same ones come to the same coefficients, whatever holds the rows."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import pytest
import scipy.sparse
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.datasets import load_iris, make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.utils.class_weight import compute_class_weight, compute_sample_weight

import scaleml
from scaleml import MLP, SGD, Adam, LinearModel

X, CODES = make_classification(400, 5, n_informative=4, n_redundant=0, weights=[0.9], flip_y=0.05, random_state=0)
RARE = np.array(["often", "rare"])[CODES]
IRIS_X, IRIS_CODES = load_iris(return_X_y=True)
IRIS_X = (IRIS_X - IRIS_X.mean(axis=0)) / IRIS_X.std(axis=0)
ROWS = np.flatnonzero((IRIS_CODES > 0) | (np.arange(150) % 5 == 0))  # of the first kind ten are left
IRIS_X, IRIS = IRIS_X[ROWS], np.array(["setosa", "versicolor", "virginica"])[IRIS_CODES[ROWS]]

pytestmark = pytest.mark.usefixtures("embedded")
STORAGE = {
    "dense": lambda x, y: (x, y),
    "CSR": lambda x, y: (scipy.sparse.csr_matrix(x), y),
    "Dask": lambda x, y: (da.from_array(x, chunks=(57, -1)), da.from_array(y, chunks=57)),
}


def converged(model: Any, x: Any, y: Any, **more: Any) -> Any:
    """Train by whole batches until nothing moves any more."""
    usual = {"epochs": 600, "batch_size": 10**6, "optimizer": SGD(0.5, momentum=0.9), "workers": 2}
    return scaleml.train(model, x, y, **{**usual, **more})


@pytest.mark.parametrize("weight", ["balanced", {"rare": 5.0}], ids=str)
@pytest.mark.parametrize("storage", STORAGE)
def test_two_classes(storage: str, weight: Any) -> None:
    model = LinearModel(alpha=0.01, class_weight=weight, dtype="float64")
    run = converged(model, *STORAGE[storage](X, RARE))
    full = weight if weight == "balanced" else {"often": 1.0, **weight}
    heavy = compute_sample_weight(full, RARE).sum()
    peer = LogisticRegression(C=1 / (0.01 * heavy), class_weight=full, tol=1e-10, max_iter=10_000).fit(X, RARE)
    assert_allclose(run.model.params[:-1], peer.coef_[0], rtol=1e-4, atol=1e-6)
    assert_allclose(run.model.params[-1:], peer.intercept_, rtol=1e-4)
    assert (run.model.predict(X) == "rare").mean() > 1.3 * (RARE == "rare").mean(), "the rare class is taken seriously"


@pytest.mark.parametrize("storage", STORAGE)
def test_several_classes_in_one_distribution(storage: str) -> None:
    run = converged(LinearModel(alpha=0.05, class_weight="balanced", dtype="float64"), *STORAGE[storage](IRIS_X, IRIS))
    peer = LogisticRegression(C=1 / (0.05 * len(IRIS)), class_weight="balanced", tol=1e-10, max_iter=10_000)
    peer.fit(IRIS_X, IRIS)
    assert_allclose(run.model.predict_proba(IRIS_X), peer.predict_proba(IRIS_X), atol=1e-5)


@pytest.mark.parametrize("storage", STORAGE)
def test_one_class_against_the_rest_weighs_in_its_own_problem(storage: str) -> None:
    model = LinearModel(alpha=0.05, class_weight="balanced", dtype="float64", multiclass="ovr")
    run = converged(model, *STORAGE[storage](IRIS_X, IRIS))
    weights = compute_class_weight("balanced", classes=np.unique(IRIS), y=IRIS)
    for k, (label, weight) in enumerate(zip(np.unique(IRIS), weights, strict=True)):
        peer = LogisticRegression(C=1 / (0.05 * len(IRIS)), tol=1e-10, max_iter=10_000)
        peer.fit(IRIS_X, label == IRIS, sample_weight=np.where(label == IRIS, weight, 1.0))
        assert_allclose(run.model.params[:12].reshape(4, 3)[:, k], peer.coef_[0], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("storage", STORAGE)
def test_a_perceptrons_classes_weigh_as_their_rows_would(storage: str) -> None:
    x, y = STORAGE[storage](IRIS_X, IRIS)
    weights = compute_sample_weight("balanced", IRIS)
    weights = da.from_array(weights, chunks=57) if storage == "Dask" else weights
    settings = {"epochs": 3, "batch_size": 20, "optimizer": Adam(0.01), "workers": 2}
    run = scaleml.train(MLP((8,), class_weight="balanced", dtype="float64"), x, y, **settings)
    peer = scaleml.train(MLP((8,), dtype="float64"), x, y, sample_weight=weights, **settings)
    assert_allclose(run.params, peer.params, rtol=1e-12)
    plain = scaleml.train(MLP((8,), dtype="float64"), x, y, **settings)
    assert not np.allclose(run.params, plain.params)


def test_weights_of_rows_and_of_classes_multiply() -> None:
    rows = np.arange(400) % 3 + 1.0
    settings = {"epochs": 2, "batch_size": 50, "workers": 2}
    run = scaleml.train(LinearModel(class_weight={"rare": 4.0}), X, RARE, sample_weight=rows, **settings)
    peer = scaleml.train(LinearModel(), X, RARE, sample_weight=rows * np.where(RARE == "rare", 4.0, 1.0), **settings)
    assert_array_equal(run.params, peer.params)


@pytest.mark.parametrize("lazy", [False, True])
def test_rows_that_are_held_out_weigh_what_they_did(lazy: bool) -> None:
    x, y = STORAGE["Dask" if lazy else "dense"](X, RARE)
    run = scaleml.train(
        LinearModel(class_weight="balanced", dtype="float64"),
        x[100:],
        y[100:],
        validation=(x[:100], y[:100]),
        workers=2,
    )
    found = run.history.evaluations
    assert found["loss"][-1] == pytest.approx(run.model.loss(X[:100], RARE[:100]))
    assert found["score"][-1] == pytest.approx((run.model.predict(X[:100]) == RARE[:100]).mean())


def test_balance_is_that_of_the_rows_to_train_on() -> None:
    # Ordered by class: what is held out by the user is not like what is trained on.
    run = scaleml.train(
        LinearModel(class_weight="balanced"), X[100:], RARE[100:], validation=(X[:100], RARE[:100]), epochs=1, workers=2
    )
    peer = scaleml.train(
        LinearModel(), X[100:], RARE[100:], sample_weight=compute_sample_weight("balanced", RARE[100:]), epochs=1, workers=2
    )  # fmt: skip
    assert_allclose(run.params, peer.params, rtol=1e-5)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (lambda: LinearModel(class_weight="equal"), "must be 'balanced', a dict"),
        (lambda: LinearModel(class_weight={"rare": -2}), r"class_weight\['rare'\]=-2"),
        (lambda: LinearModel("squared_error", class_weight="balanced"), "which is for numbers"),
        (lambda: MLP(loss="squared_error", class_weight="balanced"), "which is not for classes"),
        (lambda: MLP(class_weight=[1, 2]), "must be 'balanced', a dict"),
    ],
)
def test_what_breaks_a_rule_is_refused_by_the_model(model: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        model()


def test_a_label_that_does_not_occur_is_refused_by_the_data() -> None:
    with pytest.raises(ValueError, match="names 'seldom', which is none of the classes 'often', 'rare'"):
        scaleml.train(LinearModel(class_weight={"seldom": 2.0}), X, RARE)
