"""Little data takes scikit-learn's own steps: its results to the bit, what asks for other steps, and going on with those."""

import dask.array as da
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal
from scipy.sparse import csr_matrix
from sklearn import linear_model as sk
from sklearn.datasets import load_digits, make_classification, make_regression
from sklearn.utils import get_tags

from scaleml import SGD, AllReduce
from scaleml.estimators import rowwise
from scaleml.linear_model import SGDClassifier, SGDRegressor

SETTINGS = [
    {},
    {"average": True},
    {"average": 700},
    {"penalty": "l1"},
    {"penalty": "elasticnet", "learning_rate": "adaptive", "eta0": 0.1},
    {"early_stopping": True},
    {"shuffle": False, "warm_start": True},
    {"verbose": 1},
]
LEARNT = ("coef_", "intercept_", "n_iter_", "t_")
BATCHES = {"batch_size": 14}


def both(kind, **settings):
    """Return scikit-learn's estimator and ours."""
    ours = {"SGDClassifier": SGDClassifier, "SGDRegressor": SGDRegressor}[kind]
    return getattr(sk, kind)(random_state=1, **settings), ours(random_state=1, **settings)


def assert_same(theirs, ours):
    for name in LEARNT:
        assert_array_equal(getattr(ours, name), getattr(theirs, name), err_msg=name)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("form", ["list", "float32", "CSR", "frame"])
def test_a_classifier_is_scikit_learns_to_the_bit(settings, form, classes):
    X, y = classes
    X = {
        "list": X.tolist,
        "float32": lambda: X.astype("f"),
        "CSR": lambda: csr_matrix(X),
        "frame": lambda: pd.DataFrame(X),
    }[form]()
    y = np.array(["red", "green", "blue"])[y]
    weights = np.random.default_rng(0).uniform(0.5, 2, len(y))
    theirs, ours = both("SGDClassifier", class_weight={"red": 3.0}, **settings)
    for _ in range(2):  # the second time with warm_start
        assert_same(theirs.fit(X, y, sample_weight=weights), ours.fit(X, y, sample_weight=weights))
    assert_array_equal(ours.predict(X), theirs.predict(X))


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_a_regressor_is_scikit_learns_to_the_bit(settings, numbers):
    theirs, ours = both("SGDRegressor", **settings)
    for _ in range(2):
        assert_same(theirs.fit(*numbers), ours.fit(*numbers))


@pytest.mark.parametrize("average", [False, True])
def test_parts_of_a_stream_are_scikit_learns_to_the_bit(average, classes, numbers):
    X, y = classes
    theirs, ours = both("SGDClassifier", average=average)
    for part in np.array_split(np.arange(len(y)), 4):
        for clf in (theirs, ours):
            clf.partial_fit(X[part], y[part], classes=[0, 1, 2])
        assert_same(theirs, ours)
    X, y = numbers
    theirs, ours = both("SGDRegressor", average=average)
    for part in np.array_split(np.arange(len(y)), 4):
        assert_same(theirs.partial_fit(X[part], y[part]), ours.partial_fit(X[part], y[part]))


def test_what_is_little_is_counted_in_values_rows_and_classes():
    few, many = np.broadcast_to(0.0, (1000, 20)), np.broadcast_to(0.0, (100_000, 20))
    assert rowwise.is_little(few, None)
    assert not rowwise.is_little(many, None)
    assert rowwise.is_little(np.broadcast_to(0.0, (10_000, 50)), np.arange(10_000) % 2)
    assert not rowwise.is_little(np.broadcast_to(0.0, (10_000, 50)), np.arange(10_000) % 5)
    assert not rowwise.is_little(few, [0, 1], classes=range(100))
    assert rowwise.is_little(csr_matrix((10_000, 2**18)), None)  # nothing is stored
    assert rowwise.is_little(few, None, most=1e5)
    assert not rowwise.is_little(few, None, most=1e4)


def test_a_perceptron_is_scikit_learns_on_more_data():
    """The minimum of its loss is at 0, so that steps of batches have nowhere to go."""
    X, y = make_classification(40_000, 20, n_informative=6, weights=[0.92], flip_y=0.05, random_state=0)
    assert not rowwise.is_little(X, y)
    theirs, ours = both("SGDClassifier", loss="perceptron", max_iter=3, tol=None)
    assert_same(theirs.fit(X, y), ours.fit(X, y))


@pytest.mark.parametrize("other", [BATCHES, {"optimizer": SGD(0.01)}], ids=str)
def test_what_only_steps_of_batches_have_gets_them(other, classes):
    X, y = classes
    theirs, ours = both("SGDClassifier", tol=None, max_iter=3)
    ours.set_params(**other).fit(X, y)
    assert not np.allclose(ours.coef_, theirs.fit(X, y).coef_)
    assert get_tags(ours).input_tags.sparse


def test_verbose_changes_nothing_but_what_is_shown(capsys):
    X, y = load_digits(n_class=3, return_X_y=True)
    silent, loud = (SGDClassifier(verbose=verbose, early_stopping=True, random_state=0) for verbose in (0, 1))
    assert_array_equal(silent.fit(X, y).coef_, loud.fit(X, y).coef_)
    out, errors = capsys.readouterr()
    assert errors == ""
    (line,) = out.splitlines()
    assert line.startswith(f"SGDClassifier, epoch {loud.n_iter_}, loss = ")
    assert loud.get_params() == silent.get_params() | {"verbose": 1}


@pytest.mark.parametrize("jobs", [None, 3])
@pytest.mark.parametrize("weights", [None, {"b": 3.0}], ids=repr)
def test_the_loss_shown_is_the_mean_over_the_rows_and_the_classes_that_are_learnt(capsys, jobs, weights):
    X, codes = make_classification(300, 5, n_informative=4, n_redundant=0, n_classes=3, random_state=0)
    clf = SGDClassifier(verbose=1, n_jobs=jobs, class_weight=weights, random_state=0).fit(
        X, np.array(list("abc"))[codes]
    )
    signs = 2 * (codes[:, None] == np.arange(3)) - 1
    losses = np.maximum(0, 1 - signs * clf.decision_function(X))
    (line,) = capsys.readouterr().out.splitlines()
    assert float(line.split("loss = ")[1]) == pytest.approx(losses.mean(), abs=1e-6)


@pytest.mark.parametrize("loss", ["squared_error", "huber", "epsilon_insensitive"])
def test_the_loss_shown_is_the_mean_over_the_rows(capsys, loss):
    X, y = make_regression(100, 3, random_state=0)
    reg = SGDRegressor(loss, verbose=1, epsilon=0.5, max_iter=20, tol=None, random_state=0).fit(X, y)
    far = np.abs(reg.predict(X) - y)
    expected = {
        "squared_error": far**2 / 2,
        "huber": np.where(far <= 0.5, far**2 / 2, 0.5 * far - 0.125),
        "epsilon_insensitive": np.maximum(0, far - 0.5),
    }[loss].mean()
    (line,) = capsys.readouterr().out.splitlines()
    assert float(line.split("loss = ")[1]) == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_verbose_stays_as_it_was_when_a_fit_fails(capsys):
    clf = SGDClassifier(verbose=1)
    with pytest.raises(ValueError, match="NaN"):
        clf.fit([[np.nan], [1.0]], [0, 1])
    assert clf.verbose == 1
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("average", [False, True])
@pytest.mark.parametrize("kind", ["SGDClassifier", "SGDRegressor"])
def test_steps_of_rows_and_of_batches_go_on_from_each_other(kind, average, classes, numbers):
    X, y = classes if kind == "SGDClassifier" else numbers
    known = {"classes": [0, 1, 2]} if kind == "SGDClassifier" else {}
    _, clf = both(kind, average=average, learning_rate="invscaling", eta0=0.01, power_t=0.5)
    seen = 1
    for settings in (BATCHES, {"batch_size": "auto"}, BATCHES):
        before = None if seen == 1 else clf.coef_.copy()
        clf.set_params(**settings).partial_fit(X, y, **known)
        seen += len(y)
        assert clf.t_ == seen
        if before is not None:  # late steps are small: none has begun anew
            assert np.linalg.norm(clf.coef_ - before) < 0.7 * np.linalg.norm(before)
    assert clf.score(X, y) > 0.6


@pytest.mark.usefixtures("cluster")
def test_rows_of_another_precision_go_on_after_a_cluster(classes):
    X, y = classes
    clf = SGDClassifier("log_loss", average=True, random_state=0)
    clf.fit(da.from_array(X.astype("f"), chunks=300), da.from_array(y, chunks=300))
    assert clf.coef_.dtype == np.float32
    score = clf.score(X, y)
    clf.partial_fit(X, y)
    assert clf.coef_.dtype == np.float64
    assert clf.score(X, y) > score - 0.02
    clf.set_params(strategy=AllReduce()).partial_fit(X, y)
    assert clf.score(X, y) > score - 0.02
