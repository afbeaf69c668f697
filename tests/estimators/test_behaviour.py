"""What scikit-learn's users rely on: parameters, attributes, going on, weights, errors."""

import gc
import importlib
import pickle
import subprocess
import sys
import weakref

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy.sparse import csr_matrix
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from scaleml import SGD, Adam, AllReduce, LocalSGD, Serial
from scaleml.api import in_process as local
from scaleml.linear_model import SGDClassifier, SGDRegressor
from scaleml.neural_network import MLPClassifier, MLPRegressor
from scaleml.optim import AdamW, CosineAnnealing
from scaleml.runtime.training_loop import TrainingLoop

ALL = [SGDClassifier, SGDRegressor, MLPClassifier, MLPRegressor]


@pytest.mark.parametrize("kind", ALL)
def test_it_has_all_parameters_of_scikit_learns_and_their_defaults(kind):
    theirs = next(
        base for base in kind.__mro__ if base.__module__.startswith("sklearn") and base.__name__ == kind.__name__
    )
    own = kind().get_params()
    assert {name: own[name] for name in theirs().get_params()} == theirs().get_params()
    new = {"strategy", "workers", "batch_size", "optimizer"} | ({"class_weight"} if kind is MLPClassifier else set())
    assert set(own) - set(theirs().get_params()) <= new
    text = repr(kind(strategy=LocalSGD(4), optimizer=Adam(0.1)))
    assert "LocalSGD(period=4)" in text


def test_small_data_needs_no_cluster():
    code = (
        "import sys, numpy as np\nfrom scaleml.linear_model import SGDClassifier\n"
        "SGDClassifier().fit(np.array([[0.0], [1.0], [2.0], [3.0]]), [0, 0, 1, 1])\nprint('distributed' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["False"]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("sparse", [False, True])
def test_coefficients_have_scikit_learns_shapes_and_dtype(classes, dtype, sparse):
    X, y = classes
    X = csr_matrix(X, dtype=dtype) if sparse else X.astype(dtype)
    three = SGDClassifier(random_state=0).fit(X, y)
    two = SGDClassifier(random_state=0).fit(X, y > 0)
    assert three.coef_.shape == (3, 10)
    assert two.coef_.shape == (1, 10)
    assert two.intercept_.shape == (1,)
    assert {three.coef_.dtype, two.coef_.dtype} == {np.dtype(dtype)}
    assert list(two.classes_) == [False, True]
    regressor = SGDRegressor(random_state=0).fit(X, y)
    assert regressor.coef_.shape == (10,)
    assert not SGDClassifier(fit_intercept=False, random_state=0).fit(X, y).intercept_.any()


@pytest.mark.parametrize("strategy", ["auto", Serial(), LocalSGD(4)], ids=repr)
@pytest.mark.parametrize("penalty", [{"penalty": "l1"}, {"penalty": "elasticnet", "l1_ratio": 0.9}], ids=str)
def test_the_l1_part_of_a_penalty_makes_exact_zeros(penalty, strategy, numbers, request):
    if strategy != "auto":
        request.getfixturevalue("cluster")
    X, y = numbers
    noise = np.random.default_rng(0).standard_normal((len(y), 30))
    wide, settings = np.hstack([X, noise]), {"strategy": strategy, "random_state": 0, **penalty}
    numbers_of = SGDRegressor(alpha=0.05, eta0=0.1, **settings).fit(wide, y)
    classes_of = SGDClassifier("log_loss", alpha=0.02, **settings).fit(wide, y > 0)
    for clf in (numbers_of, classes_of):
        coef = clf.coef_.reshape(-1)
        assert (coef[8:] == 0).mean() > 0.8
        assert (coef[:8] != 0).any()
        assert clf.sparsify().predict(wide).shape == y.shape


def test_partial_fit_learns_from_single_rows_and_knows_all_classes(classes):
    X, y = classes
    clf = SGDClassifier("log_loss", random_state=0)
    for row in range(300):
        clf.partial_fit(X[row : row + 1], y[row : row + 1], classes=[0, 1, 2])
    assert clf.score(X, y) > 0.6
    assert clf.t_ == 301
    with pytest.raises(ValueError, match="not the same"):
        clf.partial_fit(X, y, classes=[0, 1])
    with pytest.raises(ValueError, match="first call"):
        SGDClassifier().partial_fit(X, y)
    with pytest.raises(ValueError, match="partial_fit"):
        SGDClassifier(early_stopping=True).partial_fit(X, y, classes=[0, 1, 2])


def test_averaging_goes_on_over_calls_of_partial_fit(classes):
    X, y = classes
    clf = SGDClassifier("log_loss", average=True, batch_size=14, random_state=0)
    for _ in range(4):
        before = getattr(clf, "coef_", None)
        clf.partial_fit(X, y, classes=[0, 1, 2])
    raw = clf._end.params[:30].reshape(10, 3).T
    assert not np.allclose(raw, clf.coef_)
    assert np.linalg.norm(clf.coef_ - before) < np.linalg.norm(raw - before)


def test_warm_start_begins_where_the_last_fit_ended(classes):
    X, y = classes
    settings = {"loss": "log_loss", "max_iter": 5, "tol": None, "batch_size": 14, "random_state": 0}
    cold = SGDClassifier(**settings).fit(X, y)
    warm = SGDClassifier(warm_start=True, **settings).fit(X, y)
    assert_allclose(cold.coef_, warm.coef_)
    warm.set_params(max_iter=1).fit(X, y)
    assert np.linalg.norm(warm.coef_ - cold.coef_) < 0.5 * np.linalg.norm(cold.coef_)
    mlp = MLPClassifier((5,), warm_start=True, max_iter=3, random_state=0)
    for _ in range(3):
        with pytest.warns(ConvergenceWarning):
            mlp.fit(X, y)
    assert len(mlp.loss_curve_) == 9
    assert mlp.loss_curve_[-1] < mlp.loss_curve_[2]


def test_weights_are_counts_for_the_objective(numbers):
    X, y = numbers
    weights = np.random.default_rng(0).integers(0, 3, len(y))
    settings = {"eta0": 0.5, "max_iter": 300, "tol": 1e-6, "random_state": 0}
    weighted = SGDRegressor(**settings).fit(X, y, sample_weight=weights)
    repeated = SGDRegressor(**settings).fit(np.repeat(X, weights, axis=0), np.repeat(y, weights))
    assert_allclose(weighted.coef_, repeated.coef_, atol=0.02)


def test_rare_classes_weigh_as_much_as_they_are_told(classes):
    X, y = classes
    rare = np.flatnonzero(y == 0)[:12]
    rows = np.concatenate([rare, np.flatnonzero(y == 1)])
    clf = SGDClassifier("log_loss", class_weight="balanced", random_state=0).fit(X[rows], y[rows])
    assert (clf.predict(X[y == 0]) == 0).mean() > 0.7


def test_pandas_names_pipelines_and_pickles(classes):
    X, y = classes
    frame = pd.DataFrame(X, columns=[f"column {i}" for i in range(10)])
    labels = np.array(["red", "green", "blue"])[y]
    for clf in (
        SGDClassifier("log_loss", random_state=0),
        MLPClassifier((8,), learning_rate_init=0.05, tol=0.01, random_state=0),
    ):
        clf.fit(frame, labels)
        assert list(clf.feature_names_in_) == list(frame.columns)
        assert set(clf.predict(frame)) <= set(labels)
        assert_allclose(clf.predict_proba(frame).sum(axis=1), 1)
        assert_allclose(np.exp(clf.predict_log_proba(frame)), clf.predict_proba(frame))
        assert (pickle.loads(pickle.dumps(clf)).predict(frame) == clf.predict(frame)).all()
        assert make_pipeline(StandardScaler(), clone(clf)).fit(frame, labels).score(frame, labels) > 0.6


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (SGDClassifier(learning_rate="pa1", strategy=AllReduce()), "one row at a time"),
        (SGDClassifier(alpha=0), "alpha must be > 0"),
        (SGDClassifier(strategy="AllReduce"), "strategy"),
        (SGDClassifier(batch_size=0), "batch_size"),
        (SGDClassifier(workers=0), "workers"),
        (SGDClassifier(optimizer="adam"), "optimizer"),
        (MLPClassifier(solver="lbfgs", strategy=AllReduce()), "lbfgs"),
        (MLPRegressor(loss="poisson", strategy=AllReduce()), "poisson"),
        (MLPClassifier(hidden_layer_sizes=(0,)), "hidden_layer_sizes"),
    ],
)
def test_what_is_not_there_is_an_error_that_says_so(estimator, message):
    with pytest.raises(ValueError, match=message):
        estimator.fit([[0.0], [1.0], [2.0]], [0, 1, 0])


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("MLPClassifier", {"solver": "lbfgs", "hidden_layer_sizes": (8,), "max_iter": 30, "tol": 1e-1}),
        ("MLPRegressor", {"loss": "poisson", "hidden_layer_sizes": (8,), "max_iter": 30, "tol": 1e-1}),
        ("SGDClassifier", {"learning_rate": "pa1", "eta0": 1.0, "penalty": None}),
        ("SGDRegressor", {"learning_rate": "pa2", "eta0": 1.0, "penalty": None, "loss": "epsilon_insensitive"}),
    ],
    ids=str,
)
def test_what_is_not_of_batches_is_scikit_learns_own(kind, settings):
    X, y = load_digits(return_X_y=True)
    X = X / 16
    room = "linear_model" if kind.startswith("SGD") else "neural_network"
    mine, theirs = (
        getattr(importlib.import_module(f"{package}.{room}"), kind)(random_state=0, **settings)
        for package in ("scaleml", "sklearn")
    )
    assert_allclose(mine.fit(X, y).predict(X), theirs.fit(X, y).predict(X), rtol=0)
    if settings.get("solver") != "lbfgs":
        classes = {"classes": np.unique(y)} if kind == "SGDClassifier" else {}
        for estimator in (mine, theirs):
            estimator.partial_fit(X[:900], y[:900], **classes).partial_fit(X[900:], y[900:])
        assert_allclose(mine.predict(X), theirs.predict(X), rtol=0)


def test_several_classes_a_row_are_refused(classes):
    X, y = classes
    with pytest.raises(ValueError, match="several classes a row"):
        MLPClassifier().fit(X, np.column_stack([y, y]))


@pytest.mark.parametrize("kind", ALL)
def test_warnings_name_the_line_that_fits(kind, classes):
    X, y = classes
    with pytest.warns(ConvergenceWarning) as seen:
        kind(max_iter=1, batch_size=20).fit(X, y)
    assert [warning.filename for warning in seen] == [__file__]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_schedule_goes_with_max_iter(classes):
    X, y = classes
    settings = {"max_iter": 20, "tol": 0, "n_iter_no_change": 99, "random_state": 0}
    changes = []
    for schedule in ("constant", CosineAnnealing()):
        rule = AdamW(0.02, schedule=schedule, no_decay="*bias")
        linear = SGDClassifier(optimizer=rule, **settings).fit(X, y)
        mlp = MLPClassifier(optimizer=rule, **settings).fit(X, y)
        assert min(linear.score(X, y), mlp.score(X, y)) > 0.6
        changes.append(abs(mlp.loss_curve_[-1] - mlp.loss_curve_[-2]))
    assert changes[1] < changes[0] / 2, "the rate falls to 0 with the last epoch"


def test_an_optimizer_replaces_the_schedule(classes):
    X, y = classes
    for rule in (Adam(0.01), SGD(0.01, momentum=0.9)):
        assert SGDClassifier("log_loss", optimizer=rule, random_state=0).fit(X, y).score(X, y) > 0.68
        with pytest.warns(ConvergenceWarning):
            assert MLPClassifier((8,), optimizer=rule, max_iter=30, random_state=0).fit(X, y).score(X, y) > 0.6


def test_verbose_prints_a_line_an_epoch(classes, capsys):
    X, y = classes
    clf = SGDClassifier(verbose=1, batch_size=14, random_state=0, early_stopping=True).fit(X, y)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == clf.n_iter_
    assert lines[0].startswith("SGDClassifier, epoch 1, loss = ")
    assert "validation score" in lines[0]


def test_shuffle_false_keeps_the_order(classes):
    X, y = classes
    settings = {"shuffle": False, "max_iter": 3, "tol": None}
    first, second = (SGDClassifier(random_state=seed, **settings).fit(X, y) for seed in (0, 0))
    assert_allclose(first.coef_, second.coef_)
    shuffled = SGDClassifier(random_state=0, max_iter=3, tol=None).fit(X, y)
    assert not np.allclose(first.coef_, shuffled.coef_)


@pytest.mark.parametrize("kind", ALL)
def test_scikit_learns_callbacks_see_each_epoch(kind, classes):
    callback = pytest.importorskip("sklearn.callback", reason="needs scikit-learn 1.9")
    X, y = classes
    seen = []

    class Watch:
        def setup(self, estimator, context):
            seen.append("setup")

        def on_fit_task_begin(self, estimator, context, **facts):
            seen.append("begin")

        def on_fit_task_end(self, estimator, context, *, fitted_estimator=None, **facts):
            seen.append("end")
            if len([word for word in seen if word == "end"]) == 4:
                assert fitted_estimator.predict(X).shape == y.shape
                return True
            return False

        def teardown(self, estimator, context):
            seen.append("teardown")

    assert isinstance(Watch(), callback.FitCallback)
    estimator = kind(random_state=0, max_iter=10, tol=0).set_callbacks(Watch()).fit(X, y)
    assert estimator.n_iter_ == 4
    assert seen[0] == "setup"
    assert seen[-1] == "teardown"
    assert seen.count("begin") == seen.count("end") == 5


def test_nothing_holds_a_fit_that_is_over(classes, monkeypatch, capsys):
    """Not even until the garbage is collected: it may have mapped much memory."""
    X, y = classes
    made = []

    class Watched(TrainingLoop):
        def __init__(self, *given):
            super().__init__(*given)
            made.append(weakref.ref(self))

    monkeypatch.setattr(local, "TrainingLoop", Watched)
    gc.disable()
    try:
        SGDClassifier(verbose=1, max_iter=2, tol=None, batch_size=14, random_state=0).fit(X, y)
    finally:
        gc.enable()
    assert capsys.readouterr().out.count("epoch") == 2
    assert [loop() for loop in made] == [None]
