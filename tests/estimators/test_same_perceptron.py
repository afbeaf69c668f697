"""Perceptrons in this process are scikit-learn's: the same seed, the same model, to rounding."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.sparse import csr_matrix
from sklearn import neural_network as sk
from sklearn.datasets import make_classification, make_multilabel_classification

from scaleml import neural_network as ours

ROWS = 90
X = make_classification(ROWS, 6, n_informative=5, n_redundant=0, n_classes=3, random_state=0)[0]
CLASSES = make_classification(ROWS, 6, n_informative=5, n_redundant=0, n_classes=3, random_state=0)[1]
TARGETS = {
    "binary": np.array(["no", "yes"])[(CLASSES > 0).astype(int)],
    "multiclass": CLASSES * 2,
    "labels": make_multilabel_classification(ROWS, 6, n_classes=4, random_state=0)[1],
    "number": X[:, 0] * X[:, 1] + 5,
    "numbers": np.column_stack([X[:, 0], X[:, 1] ** 2, X[:, 2] - X[:, 3]]),
}
SETTINGS = {
    "adam": {},
    "adam with a large epsilon": {"epsilon": 0.1, "beta_1": 0.5, "beta_2": 0.9},
    "adam until it stops": {"learning_rate_init": 0.05, "tol": 0.02, "n_iter_no_change": 3, "max_iter": 300},
    "sgd": {"solver": "sgd", "learning_rate_init": 0.02},
    "sgd, momentum": {"solver": "sgd", "nesterovs_momentum": False, "momentum": 0.7},
    "sgd, no momentum": {"solver": "sgd", "momentum": 0.0},
    "adaptive": {"solver": "sgd", "learning_rate": "adaptive", "learning_rate_init": 0.01, "tol": 0.1, "n_iter_no_change": 2},
    "invscaling": {"solver": "sgd", "learning_rate": "invscaling", "learning_rate_init": 0.05, "power_t": 0.3},
    "adam knows no schedule": {"learning_rate": "adaptive", "tol": 0.1, "n_iter_no_change": 2},
    "early stopping": {"early_stopping": True, "learning_rate_init": 0.03, "n_iter_no_change": 4, "max_iter": 100},
    "early stopping, adaptive": {
        "early_stopping": True, "solver": "sgd", "learning_rate": "adaptive", "learning_rate_init": 0.01, "n_iter_no_change": 1,
    },
    "a large penalty": {"alpha": 30.0, "batch_size": 40},
    "no penalty": {"alpha": 0.0},
    "tanh": {"activation": "tanh", "hidden_layer_sizes": (7, 5)},
    "logistic": {"activation": "logistic", "hidden_layer_sizes": 8, "learning_rate_init": 0.02},
    "identity": {"activation": "identity", "hidden_layer_sizes": (4,)},
    "no hidden layer": {"hidden_layer_sizes": ()},
    "batches of 7": {"batch_size": 7},
    "one batch": {"batch_size": ROWS},
    "in order": {"shuffle": False, "batch_size": 32},
}  # fmt: skip


KINDS = {
    "float32": (X.astype("f4"), 2e-3),
    "CSR": (csr_matrix(X), 1e-9),
    "CSR, float32": (csr_matrix(X.astype("f4")), 2e-3),
    "Fortran": (np.asfortranarray(X), 1e-9),
    "integers": (np.round(X * 3).astype(int), 1e-9),
}


def in_turn(table):
    """Each entry with a kind of labels and a kind of numbers, others for the next one."""
    kinds = [kind for kind in TARGETS if not kind.startswith("number")], ["number", "numbers"]
    return [(entry, of[place % len(of)]) for place, entry in enumerate(table) for of in kinds]


def pair(target, **settings):
    name = "MLPRegressor" if target.startswith("number") else "MLPClassifier"
    usual = {"hidden_layer_sizes": (9,), "batch_size": 20, "max_iter": 8, "random_state": 3}
    return [getattr(module, name)(**usual | settings) for module in (sk, ours)]


def assert_same(theirs, mine, rtol=1e-9, atol=1e-10):
    assert (mine.n_iter_, mine.t_) == (theirs.n_iter_, theirs.t_)
    for name in ("coefs_", "intercepts_"):
        for want, got in zip(getattr(theirs, name), getattr(mine, name), strict=True):
            assert got.dtype == want.dtype
            assert_allclose(got, want, rtol, atol)
    assert_allclose(mine.loss_curve_, theirs.loss_curve_, rtol, atol)
    for name in ("loss_", "best_loss_", "best_validation_score_", "validation_scores_"):
        want, got = getattr(theirs, name), getattr(mine, name)
        assert (want is None) == (got is None)
        assert want is None or len(np.atleast_1d(got)) == len(np.atleast_1d(want))
        assert want is None or np.allclose(got, want, rtol, atol)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(("settings", "target"), in_turn(SETTINGS))
def test_the_same_seed_gives_the_same_model(settings, target):
    theirs, mine = (each.fit(X, TARGETS[target]) for each in pair(target, **SETTINGS[settings]))
    assert_same(theirs, mine)


WEIGHTS = {
    "between 0 and 5": np.random.default_rng(0).uniform(0, 5, ROWS),
    "0 and 1": (np.arange(ROWS) % 3 > 0).astype(float),
    "huge": np.random.default_rng(0).lognormal(0, 3, ROWS) * 1e9,
}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(("weights", "target"), in_turn(WEIGHTS))
def test_the_same_weights_give_the_same_model(weights, target):
    for early_stopping in (False, True):
        models = pair(target, early_stopping=early_stopping, alpha=0.5, batch_size=27)  # no batch without weight
        assert_same(*(each.fit(X, TARGETS[target], sample_weight=WEIGHTS[weights]) for each in models))


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(("kind", "target"), in_turn(KINDS))
def test_the_same_kind_of_data_gives_the_same_model(kind, target):
    data, tolerance = KINDS[kind]
    y = TARGETS[target].astype("f4") if target.startswith("number") else TARGETS[target]
    assert_same(*(each.fit(data, y) for each in pair(target, alpha=0.1)), tolerance, tolerance)


GOING_ON = {
    "adam": {},
    "stale": {"tol": 1.0, "n_iter_no_change": 2},
    "invscaling": {"solver": "sgd", "learning_rate": "invscaling", "learning_rate_init": 0.03},
    "adaptive": {"solver": "sgd", "learning_rate": "adaptive", "tol": 1.0, "n_iter_no_change": 2},
}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(("case", "target"), in_turn(GOING_ON))
def test_it_goes_on_as_scikit_learns_does(case, target):
    settings, y, whole = GOING_ON[case], TARGETS[target], {}
    if target in ("binary", "multiclass"):
        whole["classes"] = np.unique(y)
    theirs, mine = pair(target, warm_start=True, max_iter=4, **settings)
    for _ in range(3):
        assert_same(theirs.fit(X, y), mine.fit(X, y))
    theirs, mine = pair(target, **settings)
    if target == "labels":
        whole["classes"] = np.arange(4)
    for start, stop in pairwise((0, 50, 90, 90)):
        part = slice(start, stop) if stop > start else slice(0, 70)
        for _ in range(3):
            if not hasattr(theirs, "coefs_"):
                theirs.partial_fit(X[part], y[part], **whole), mine.partial_fit(X[part], y[part], **whole)
            else:
                theirs.partial_fit(X[part], y[part]), mine.partial_fit(X[part], y[part])
            assert_same(theirs, mine)


def test_log_losses_are_those_of_clipped_probabilities():
    far, y = X * 1e4, (CLASSES > 1).astype(int)
    for target in (y, CLASSES):
        theirs, mine = (each.partial_fit(far, target, classes=np.unique(target)) for each in pair("binary"))
        assert_same(theirs, mine)
        assert 1 < theirs.loss_ < -np.log(np.finfo(float).eps)
