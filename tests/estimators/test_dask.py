"""Estimators on Dask collections: trained where they lie, predicting lazily, with scikit-learn's contract."""

import pickle
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from dask import delayed
from distributed import Client
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone, is_classifier
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import accuracy_score, r2_score
from sklearn.model_selection import GridSearchCV, cross_val_score

from scaleml import AllReduce, LocalSGD
from scaleml.linear_model import SGDClassifier, SGDRegressor
from scaleml.neural_network import MLPClassifier, MLPRegressor

pytestmark = [
    pytest.mark.usefixtures("cluster"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]
ROWS = (300, 0, 400, 200)
NAMES = np.array(["red", "green", "blue"])
SMALL = {"learning_rate_init": 0.01, "max_iter": 30, "n_iter_no_change": 30, "batch_size": 64}
ESTIMATORS = {
    "log_loss": SGDClassifier("log_loss", random_state=0),
    "hinge": SGDClassifier(random_state=0),
    "huber": SGDClassifier("huber", epsilon=0.5, eta0=0.1, random_state=0),
    "SGDRegressor": SGDRegressor(eta0=0.1, random_state=0),
    "MLPClassifier": MLPClassifier((15,), random_state=0, **SMALL),
    "MLPRegressor": MLPRegressor(hidden_layer_sizes=(15,), random_state=0, **SMALL),
}


def chunked(values: Any, chunks: Any = ROWS) -> Any:
    values = np.asarray(values)
    return da.from_array(values, chunks=(chunks, *(-1 for _ in values.shape[1:])))


def unknown(array: Any) -> Any:
    out = array.copy()
    out._chunks = (tuple(np.nan for _ in array.chunks[0]), *array.chunks[1:])
    return out


def data_for(estimator: Any, classes: Any, numbers: Any) -> tuple[Any, Any]:
    """Rows of the three classes, named, or with a target that depends on them."""
    X, y = classes
    return (X, NAMES[y]) if is_classifier(estimator) else (X, X[:, 0] - 2 * X[:, 1] + 1)


STORAGE = {
    "dense": chunked,
    "float32": lambda X: chunked(X.astype("f4")),
    "CSR": lambda X: chunked(X).map_blocks(scipy.sparse.csr_matrix),
    "unknown": lambda X: unknown(chunked(X)),
}


@pytest.fixture(params=ESTIMATORS)
def estimator(request: pytest.FixtureRequest) -> Any:
    return clone(ESTIMATORS[request.param])


@pytest.mark.parametrize(
    ("kind", "storage"),
    [
        *((kind, "dense") for kind in ESTIMATORS),
        *(("log_loss", storage) for storage in STORAGE),
        ("MLPClassifier", "CSR"),
    ],
)
def test_a_dask_array_trains_as_well_as_its_rows(kind: str, storage: str, classes: Any, numbers: Any) -> None:
    estimator = clone(ESTIMATORS[kind])
    X, y = data_for(estimator, classes, numbers)
    lazy_X, lazy_y = STORAGE[storage](X), chunked(y)
    if storage == "unknown":
        lazy_y = unknown(lazy_y)
    here = clone(estimator)
    if isinstance(here, SGDClassifier | SGDRegressor):
        here.set_params(batch_size=14)  # steps of batches, as on a cluster
    here.fit(X, y)
    there = estimator.fit(lazy_X, lazy_y)
    assert there.score(X, y) > here.score(X, y) - 0.02
    assert there.n_features_in_ == 10
    assert not hasattr(there, "feature_names_in_")
    coefficients = there.coef_ if hasattr(there, "coef_") else there.coefs_[0]
    assert coefficients.dtype == ("float32" if storage == "float32" else "float64")
    if is_classifier(estimator):
        assert_array_equal(there.classes_, np.unique(y))
    copy = pickle.loads(pickle.dumps(there))
    assert_array_equal(copy.predict(X), there.predict(X))


@pytest.mark.parametrize("storage", STORAGE)
def test_predictions_are_lazy_with_the_right_chunks_and_dtype(
    estimator: Any, storage: str, classes: Any, numbers: Any
) -> None:
    X, y = data_for(estimator, classes, numbers)
    estimator.set_params(max_iter=3).fit(X, y)
    lazy = STORAGE[storage](X)
    for method in ("predict", "decision_function", "predict_proba", "predict_log_proba"):
        if not hasattr(estimator, method):
            continue
        plain = getattr(estimator, method)(X.astype("f4") if storage == "float32" else X)
        found = getattr(estimator, method)(lazy)
        assert isinstance(found, da.Array)
        assert found.dtype == plain.dtype
        assert found.ndim == plain.ndim
        assert found.chunks[1:] == tuple((size,) for size in plain.shape[1:])
        if storage != "unknown":
            assert found.chunks[0] == ROWS
        computed = found.compute(scheduler="synchronous")
        assert computed.dtype == plain.dtype
        if plain.dtype.kind == "f":
            assert_allclose(computed, plain, rtol=1e-5, atol=1e-6)
        else:
            assert_array_equal(computed, plain)


def test_scores_are_scikit_learns(estimator: Any, classes: Any, numbers: Any, cluster: Client) -> None:
    X, y = data_for(estimator, classes, numbers)
    weights = np.random.default_rng(0).random(len(y))
    estimator.set_params(max_iter=3).fit(X, y)
    oracle = accuracy_score if is_classifier(estimator) else r2_score
    plain = oracle(y, estimator.predict(X), sample_weight=weights)
    for given in ((chunked(X), chunked(y), chunked(weights)), (chunked(X), y, weights), (X, chunked(y), weights)):
        estimator.client = cluster
        assert estimator.score(*given) == pytest.approx(plain, rel=1e-9)
        assert type(estimator.score(*given)) is float
    assert estimator.score(unknown(chunked(X)), unknown(chunked(y))) == pytest.approx(estimator.score(X, y))


def test_r2_of_several_targets_is_their_mean(classes: Any) -> None:
    X, _ = classes
    y = np.column_stack([X[:, 0] + 1e6, 5 * X[:, 1], np.ones(len(X))])
    mlp = MLPRegressor(hidden_layer_sizes=(5,), max_iter=2, random_state=0).fit(X, y[:, :2] - y[:, :2].mean(axis=0))
    target = y[:, :2] - y[:, :2].mean(axis=0)
    assert mlp.score(chunked(X), chunked(target)) == pytest.approx(mlp.score(X, target), rel=1e-9)
    wide = MLPRegressor(hidden_layer_sizes=(5,), max_iter=2, random_state=0).fit(chunked(X), chunked(y))
    assert wide.predict(X).shape == (900, 3)
    assert wide.score(chunked(X), chunked(y)) == pytest.approx(wide.score(X, y), rel=1e-6)


def test_a_dataframe_gives_its_names(classes: Any) -> None:
    dd = pytest.importorskip("dask.dataframe", reason="Dask's dataframes need pyarrow")
    X, y = classes
    table = pd.DataFrame(X, columns=[f"column {i}" for i in range(10)]).assign(kind=NAMES[y], mass=1.0)
    frame = dd.from_pandas(table, npartitions=3, sort=False)
    columns = frame[list(table.columns[:10])]
    for clf in (SGDClassifier("log_loss", random_state=0), MLPClassifier((15,), random_state=0, **SMALL)):
        clf.fit(columns, frame["kind"], sample_weight=frame["mass"])
        assert list(clf.feature_names_in_) == list(table.columns[:10])
        assert set(clf.classes_) == set(NAMES)
        plain = clf.predict(table[table.columns[:10]])
        assert_array_equal(clf.predict(columns).compute(), plain)
        assert clf.predict_proba(columns).compute().shape == (900, 3)
        assert clf.score(columns, frame["kind"]) == pytest.approx((plain == table["kind"]).mean())
        with pytest.raises(ValueError, match="feature names"):
            clf.predict(frame[[*table.columns[1:10], "mass"]])
        with pytest.warns(UserWarning, match="feature names"):
            clf.predict(chunked(X))


def test_weights_and_class_weights_are_those_of_rows(classes: Any) -> None:
    X, y = classes
    weights = np.where(y == 2, 0.0, 1.0)
    for kind in (SGDClassifier("log_loss", random_state=0), MLPClassifier((15,), random_state=0, **SMALL)):
        clf = kind.fit(chunked(X), chunked(y), sample_weight=chunked(weights, 450))
        assert (clf.predict(X) == 2).mean() < 0.02
    rare = np.sort(np.concatenate([np.flatnonzero(y == 0)[:12], np.flatnonzero(y == 1)]))
    for weight in ("balanced", {0: 20.0}):
        clf = SGDClassifier("log_loss", class_weight=weight, random_state=0)
        clf.fit(chunked(X[rare], 80), chunked(y[rare], 80))
        assert (clf.predict(X[y == 0]) == 0).mean() > 0.7
    plain = SGDClassifier("log_loss", random_state=0).fit(chunked(X[rare], 80), chunked(y[rare], 80))
    assert (plain.predict(X[y == 0]) == 0).mean() < 0.6
    numbers = X[:, 0] * 3
    heavy = SGDRegressor(eta0=0.1, random_state=0).fit(
        chunked(np.vstack([X, X]), 700),
        chunked(np.concatenate([numbers, -numbers]), 700),
        sample_weight=chunked(np.repeat([1000.0, 1e-3], 900), 700),
    )
    assert heavy.score(X, numbers) > 0.98


def test_early_stopping_holds_rows_of_each_partition_out(classes: Any) -> None:
    X, y = classes
    mlp = MLPClassifier(
        (20,), early_stopping=True, learning_rate_init=0.01, tol=0.01, n_iter_no_change=3, batch_size=64, random_state=0
    ).fit(chunked(X), chunked(y))
    assert mlp.n_iter_ < 200
    assert len(mlp.validation_scores_) == mlp.n_iter_
    assert mlp.best_validation_score_ == max(mlp.validation_scores_) > 0.8
    clf = SGDClassifier("log_loss", early_stopping=True, validation_fraction=0.3, random_state=0)
    clf.fit(chunked(X), chunked(y))
    assert clf.n_iter_ < 1000
    assert 0.68 * len(y) < (clf.t_ - 1) / clf.n_iter_ < 0.72 * len(y)
    with pytest.raises(ValueError, match="validation_fraction"):
        SGDClassifier(early_stopping=True, validation_fraction=1e-9).fit(chunked(X), chunked(y))


def test_partial_fit_goes_on_and_knows_all_classes(classes: Any) -> None:
    X, y = classes
    labels = NAMES[y]
    for clf in (
        SGDClassifier("log_loss", random_state=0),
        MLPClassifier((10,), learning_rate_init=0.01, batch_size=64, random_state=0),
    ):
        for low in (0, 300, 600, 0, 300, 600):
            part = slice(low, low + 300)
            clf.partial_fit(chunked(X[part], 100), chunked(labels[part], 100), classes=np.append(NAMES, "never"))
        assert list(clf.classes_) == ["blue", "green", "never", "red"]
        assert clf.score(X, labels) > 0.6
        with pytest.raises(ValueError, match="none of the training classes"):
            clf.partial_fit(chunked(X), chunked(y.astype(str)))
        with pytest.raises(ValueError, match="10 features"):
            clf.partial_fit(chunked(X[:, 1:]), chunked(labels))
    regressor = SGDRegressor(eta0=0.1, random_state=0)
    losses = [regressor.partial_fit(chunked(X), chunked(X[:, 0])).score(X, X[:, 0]) for _ in range(5)]
    assert losses[-1] > losses[0]
    assert regressor.t_ == 1 + 5 * 900
    mlp = MLPRegressor(hidden_layer_sizes=(10,), learning_rate_init=0.01, random_state=0)
    assert len([mlp.partial_fit(chunked(X), X[:, 0]) for _ in range(3)][-1].loss_curve_) == 3


def test_a_warm_start_goes_on(classes: Any) -> None:
    X, y = classes
    clf = SGDClassifier("log_loss", warm_start=True, max_iter=5, tol=None, random_state=0).fit(chunked(X), chunked(y))
    before = clf.coef_
    clf.set_params(max_iter=1).fit(chunked(X), chunked(y))
    assert np.linalg.norm(clf.coef_ - before) < 0.5 * np.linalg.norm(before)
    mlp = MLPClassifier((5,), warm_start=True, max_iter=3, random_state=0)
    for _ in range(3):
        mlp.fit(chunked(X), chunked(y))
    assert len(mlp.loss_curve_) == 9


def test_the_strategy_and_the_client_are_honoured(classes: Any, cluster: Client) -> None:
    X, y = classes
    clf = SGDClassifier("log_loss", strategy=LocalSGD(4), workers=1, random_state=0)
    clf.client = cluster
    assert clf.fit(chunked(X), chunked(y)).score(X, y) > 0.68
    with pytest.raises(ValueError, match="shuffle=False with a Dask collection"):
        SGDClassifier(shuffle=False).fit(chunked(X), chunked(y))


REFUSED = {
    "text": (lambda X, y: (da.from_array(X.astype("U4"), chunks=300), y), "real numbers"),
    "delayed": (lambda X, y: (delayed(X), y), "from_delayed"),
    "other rows": (lambda X, y: (chunked(X), y[1:]), "899"),
    "one class": (lambda X, y: (chunked(X), chunked(np.zeros(900, int))), "one class only"),
    "missing": (lambda X, y: (chunked(np.where(X > 3, np.nan, X)), y), "not finite"),
    "real labels": (lambda X, y: (chunked(X), chunked(X[:, 0])), "real number"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_trained_on_is_refused_with_the_remedy(kind: str, classes: Any) -> None:
    make, message = REFUSED[kind]
    for clf in (SGDClassifier(), MLPClassifier()):
        with pytest.raises((ValueError, TypeError), match=message):
            clf.fit(*make(*classes))


def test_other_columns_are_refused_before_anything_is_computed(classes: Any) -> None:
    X, y = classes
    clf = SGDClassifier("log_loss", random_state=0).fit(X, y)
    with pytest.raises(ValueError, match="9 features"):
        clf.predict(chunked(X[:, 1:]))
    assert not hasattr(SGDClassifier(), "predict_proba")
    with pytest.raises(Exception, match="not fitted"):
        SGDClassifier().predict(chunked(X))


def test_scikit_learns_tools_take_what_was_trained_on_a_cluster(classes: Any) -> None:
    X, y = classes
    clf = SGDClassifier("log_loss", random_state=0).fit(chunked(X), chunked(y))
    calibrated = CalibratedClassifierCV(FrozenEstimator(clf)).fit(X, y)
    assert calibrated.score(X, y) > 0.68
    fresh = clone(clf)
    assert not hasattr(fresh, "coef_")
    assert cross_val_score(fresh.set_params(strategy=AllReduce(), max_iter=5), X, y, cv=2).mean() > 0.6
    search = GridSearchCV(SGDClassifier(random_state=0), {"alpha": [1e-4, 1e-2]}, cv=2)
    assert search.fit(X, y).best_estimator_.score(chunked(X), chunked(y)) > 0.65
