"""Estimators as models on Dask collections: what ``fit`` with that strategy does, where the rows lie."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import pytest
import scipy.sparse
from numpy.testing import assert_allclose
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import scaleml
from scaleml import AllReduce
from scaleml.linear_model import SGDClassifier, SGDRegressor
from scaleml.neural_network import MLPClassifier

pytestmark = [
    pytest.mark.usefixtures("cluster"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]

X, Y = load_breast_cancer(return_X_y=True)
X = (X - X.mean(axis=0)) / X.std(axis=0)
NAMES = np.array(["bad", "good"])[Y]
LAZY_X, LAZY_Y = da.from_array(X, chunks=(100, -1)), da.from_array(NAMES, chunks=150)


@pytest.mark.parametrize(
    "clf",
    [
        SGDClassifier(loss="log_loss", random_state=0, max_iter=10),
        SGDClassifier(loss="hinge", random_state=0, max_iter=10, class_weight="balanced"),
        SGDClassifier(loss="squared_error", random_state=0, max_iter=10),
    ],
    ids=str,
)
def test_a_run_is_what_fit_with_that_strategy_is(clf: Any) -> None:
    peer = clone(clf).set_params(strategy=AllReduce(), workers=2)
    seed = peer._seed()
    run = scaleml.train(clf, LAZY_X, LAZY_Y, workers=2, seed=seed)
    fitted = run.estimator
    peer.fit(LAZY_X, LAZY_Y)
    assert fitted.n_iter_ == peer.n_iter_
    assert_allclose(fitted.coef_, peer.coef_, rtol=1e-9)
    assert fitted.classes_.tolist() == ["bad", "good"]
    assert (fitted.predict(X) == NAMES).mean() > 0.9


@pytest.mark.parametrize("balanced", [None, "balanced"])
def test_rows_are_held_out_of_each_partition_and_weigh_the_same_whatever_their_class(balanced: Any) -> None:
    clf = SGDClassifier(loss="log_loss", random_state=0, class_weight=balanced)
    run = scaleml.train(clf, LAZY_X, LAZY_Y, validation=0.3, epochs=2, workers=2)
    score = run.history.evaluations["score"][-1]
    held = run.plan.rows
    assert held == pytest.approx(0.7 * 569, abs=3)
    # Counted rows: a score is a whole number of them, which weights of classes would not leave so.
    assert score * (569 - held) == pytest.approx(round(score * (569 - held)), abs=1e-4)
    assert score > 0.9


@pytest.mark.parametrize("lazy", [False, True])
def test_other_held_out_rows(lazy: bool) -> None:
    held = (LAZY_X[:150], LAZY_Y[:150]) if lazy else (X[:150], NAMES[:150])
    run = scaleml.train(
        SGDClassifier(loss="log_loss", random_state=0), LAZY_X[150:], LAZY_Y[150:], validation=held, workers=2
    )
    assert run.history.evaluations["score"][-1] == pytest.approx((run.estimator.predict(X[:150]) == NAMES[:150]).mean())


def test_sparse_blocks_keep_their_columns() -> None:
    lazy = LAZY_X.map_blocks(lambda block: scipy.sparse.csr_matrix(block * (block > 1)), dtype=float)
    run = scaleml.train(SGDClassifier(loss="log_loss", random_state=0), lazy, LAZY_Y, epochs=3, workers=2)
    sparse = scipy.sparse.csr_matrix(X * (X > 1))
    assert (run.model.predict(sparse) == run.estimator.predict(sparse)).all()


def test_perceptrons_and_numbers() -> None:
    iris, kinds = load_iris(return_X_y=True)
    lazy, labels = da.from_array(iris, chunks=(60, -1)), da.from_array(kinds, chunks=60)
    clf = MLPClassifier((10,), learning_rate_init=0.02, random_state=0, batch_size=16)
    assert scaleml.train(clf, lazy, labels, epochs=30, workers=2).estimator.score(iris, kinds) > 0.9
    numbers = scaleml.train(SGDRegressor(eta0=0.1, random_state=0), lazy, lazy[:, 0] - lazy[:, 1], epochs=30, workers=2)
    assert numbers.estimator.score(iris, iris[:, 0] - iris[:, 1]) > 0.9


def test_transformers_of_this_process_are_refused_with_what_to_do() -> None:
    with pytest.raises(TypeError, match="transform it first"):
        scaleml.train(make_pipeline(StandardScaler(), SGDClassifier()), LAZY_X, LAZY_Y)
    run = scaleml.train(make_pipeline("passthrough", SGDClassifier()), LAZY_X, LAZY_Y, epochs=1, workers=2)
    assert run.estimator.predict(X[:3]).shape == (3,)


def test_a_loss_for_numbers_takes_held_out_rows_that_are_here() -> None:
    clf = SGDClassifier(loss="squared_error", random_state=0)
    run = scaleml.train(clf, LAZY_X[150:], LAZY_Y[150:], validation=(X[:150], NAMES[:150]), epochs=5, workers=2)
    assert run.best_evaluation is not None
    with pytest.raises(ValueError, match="learns 1 and -1 of classes"):
        scaleml.train(clf, LAZY_X[150:], LAZY_Y[150:], validation=(LAZY_X[:150], LAZY_Y[:150]))
