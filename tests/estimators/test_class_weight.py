"""Class weights of estimators: what rows of those weights would do; held-out rows are judged without them."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import pytest
import scipy.sparse
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.estimator_checks import check_class_weight_classifiers

import scaleml
from scaleml.linear_model import SGDClassifier
from scaleml.neural_network import MLPClassifier

X, CODES = load_iris(return_X_y=True)
ROWS = np.flatnonzero((CODES > 0) | (np.arange(150) % 5 == 0))
X, Y = X[ROWS], np.array(["setosa", "versicolor", "virginica"])[CODES[ROWS]]
CANCER_X, CANCER = load_breast_cancer(return_X_y=True)
CANCER_X = (CANCER_X - CANCER_X.mean(axis=0)) / CANCER_X.std(axis=0)

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def perceptron(**more: Any) -> MLPClassifier:
    usual = {
        "hidden_layer_sizes": (10,),
        "max_iter": 12,
        "random_state": 0,
        "batch_size": 20,
        "learning_rate_init": 0.01,
    }
    return MLPClassifier(**{**usual, **more})


@pytest.mark.parametrize("weight", ["balanced", {"setosa": 4.0, "versicolor": 1.0, "virginica": 0.5}], ids=str)
@pytest.mark.parametrize("matrix", [np.asarray, scipy.sparse.csr_matrix])
def test_a_perceptrons_classes_weigh_as_their_rows_would(weight: Any, matrix: Any) -> None:
    clf = perceptron(class_weight=weight).fit(matrix(X), Y)
    peer = perceptron().fit(matrix(X), Y, sample_weight=compute_sample_weight(weight, Y))
    for mine, theirs in zip(clf.coefs_, peer.coefs_, strict=True):
        assert_array_equal(mine, theirs)
    rows = np.arange(len(Y)) % 4 + 1.0
    clf.fit(matrix(X), Y, sample_weight=rows)
    peer.fit(matrix(X), Y, sample_weight=rows * compute_sample_weight(weight, Y))
    assert_allclose(clf.coefs_[0], peer.coefs_[0], rtol=1e-12)


def test_of_dask_collections_too(cluster: Any) -> None:
    lazy = da.from_array(X, chunks=(40, -1)), da.from_array(Y, chunks=40)
    weights = da.from_array(compute_sample_weight("balanced", Y), chunks=40)
    clf = perceptron(class_weight="balanced").fit(*lazy)
    peer = perceptron().fit(*lazy, sample_weight=weights)
    assert_allclose(clf.coefs_[0], peer.coefs_[0], rtol=1e-10)


def test_scikit_learns_check_of_class_weights_holds() -> None:
    check_class_weight_classifiers("MLPClassifier", perceptron(max_iter=200))


def test_train_takes_it_from_the_estimator(cluster: Any) -> None:
    run = scaleml.train(perceptron(class_weight="balanced"), X, Y, workers=2)
    peer = scaleml.train(perceptron(), X, Y, sample_weight=compute_sample_weight("balanced", Y), workers=2)
    assert_allclose(run.params, peer.params, rtol=1e-10)


STOPPING = {"early_stopping": True, "max_iter": 3, "class_weight": "balanced", "random_state": 0}


@pytest.mark.parametrize(
    "clf", [perceptron(**STOPPING), SGDClassifier(batch_size=8, **STOPPING)], ids=lambda clf: type(clf).__name__
)
def test_early_stopping_counts_held_out_rows_whatever_their_class(clf: Any) -> None:
    heard: list[float] = []

    class Watching(type(clf)):  # type: ignore[misc]
        def _take(self, outcome: Any, *more: Any, **named: Any) -> None:
            heard.extend(outcome.scores)
            super()._take(outcome, *more, **named)

    Watching(**clf.get_params()).fit(CANCER_X, CANCER)
    rows = np.array(heard) * 57  # a tenth of all
    assert len(rows) >= 3
    assert_allclose(rows, rows.round(), atol=1e-9)


@pytest.mark.parametrize(
    ("clf", "call", "words"),
    [
        (perceptron(class_weight="balanced"), lambda clf: clf.partial_fit(X, Y, classes=np.unique(Y)), "not supported for partial_fit"),
        (perceptron(class_weight="balanced", solver="lbfgs"), lambda clf: clf.fit(X, Y), "scikit-learn's own and has none"),
        (perceptron(class_weight="balanced"), lambda clf: clf.fit(X, np.eye(3, dtype=int)[CODES[ROWS]]), "several labels a row"),
        (perceptron(class_weight={"rose": 2.0}), lambda clf: clf.fit(X, Y), "rose|class_weight"),
        (perceptron(class_weight="equal"), lambda clf: clf.fit(X, Y), "class_weight"),
    ],
)  # fmt: skip
def test_what_cannot_be_weighed_is_refused(clf: Any, call: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call(clf)
