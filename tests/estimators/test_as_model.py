"""Estimators and pipelines as models: ``train`` does what their ``fit`` with a strategy does, and gives back fitted ones."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import sklearn.ensemble
import sklearn.linear_model
import sklearn.neural_network
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.utils.validation import check_is_fitted

import scaleml
from scaleml import SGD, Adam, AllReduce, LinearModel, LocalSGD, ParameterServer, Serial
from scaleml.data.split import hold_out
from scaleml.linear_model import SGDClassifier, SGDRegressor
from scaleml.neural_network import MLPClassifier, MLPRegressor

pytestmark = [
    pytest.mark.usefixtures("cluster"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]

CANCER, DIGITS, IRIS, DIABETES = (
    load(return_X_y=True) for load in (load_breast_cancer, load_digits, load_iris, load_diabetes)
)
CASES = [
    (SGDClassifier(loss="log_loss", random_state=3), IRIS),
    (SGDClassifier(random_state=3, class_weight="balanced"), CANCER),
    (SGDClassifier(random_state=3, class_weight={0: 3.0, 1: 1, 2: 0.5}), IRIS),
    (SGDClassifier("squared_error", random_state=3, max_iter=5), IRIS),
    (SGDClassifier(random_state=3, penalty="l1", alpha=0.01), CANCER),
    (SGDRegressor(random_state=3, tol=0.1), DIABETES),  # which ends it, after 88 epochs
    (MLPClassifier((10,), max_iter=8, random_state=3), IRIS),
    (MLPRegressor(hidden_layer_sizes=(10,), max_iter=8, random_state=3), DIABETES),
]


def attributes(estimator: Any) -> dict[str, Any]:
    """Return what fitting has set."""
    return {name: value for name, value in vars(estimator).items() if name.endswith("_") and not name.startswith("__")}


@pytest.mark.parametrize(("estimator", "data"), CASES, ids=lambda case: str(case)[:40] if hasattr(case, "fit") else "")
@pytest.mark.parametrize("strategy", [Serial(), AllReduce()], ids=repr)
def test_a_run_is_what_fit_with_that_strategy_is(estimator: Any, data: Any, strategy: Any) -> None:
    X, y = data[0] / np.abs(data[0]).max(axis=0), data[1]
    peer = clone(estimator).set_params(strategy=strategy, workers=2)
    linear = isinstance(
        peer, SGDClassifier | SGDRegressor
    )  # perceptrons draw their first weights and the order of rows apart
    run = scaleml.train(estimator, X, y, strategy=strategy, workers=2, seed=peer._seed() if linear else None)
    fitted = run.estimator
    assert not attributes(estimator), "the estimator itself is left as it is"
    peer.fit(X, y)
    assert fitted.n_iter_ == peer.n_iter_
    if linear:
        assert_allclose(fitted.coef_, peer.coef_, rtol=1e-10)
        assert_allclose(fitted.intercept_, peer.intercept_, rtol=1e-10, atol=1e-12)
    assert_array_equal(fitted.predict(X[:20]).shape, peer.predict(X[:20]).shape)
    if (run.model.classes is None) == (not hasattr(peer, "classes_")):  # a loss for numbers sees +-1 of classes
        assert fitted.score(X, y) == pytest.approx(run.model.score(X, y), rel=1e-6)
    assert attributes(peer).keys() - {"_no_callbacks_"} <= attributes(fitted).keys()


def test_first_weights_are_scikit_learns_for_the_same_random_state() -> None:
    X, y = IRIS
    clf = MLPClassifier((7,), random_state=5, max_iter=1, learning_rate_init=1e-300)
    peer = sklearn.neural_network.MLPClassifier((7,), random_state=5, max_iter=1, learning_rate_init=1e-300)
    fitted = scaleml.train(clf, X, y, workers=2).estimator
    for mine, theirs in zip(fitted.coefs_, peer.fit(X, y).coefs_, strict=True):
        assert_array_equal(mine, theirs)


def test_a_pipeline_is_fitted_on_the_rows_to_train_on_only() -> None:
    X, y = CANCER
    pipeline = make_pipeline(StandardScaler(), SGDClassifier(loss="log_loss", random_state=0))
    run = scaleml.train(pipeline, X, y, validation=0.25, workers=2)
    rows, held = hold_out(len(X), 0.25, 0)
    scaler = StandardScaler().fit(X[rows])
    fitted = run.last_estimator
    assert isinstance(fitted, Pipeline)
    assert_allclose(fitted[0].mean_, scaler.mean_, rtol=1e-12)
    assert fitted.score(X[held], y[held]) == pytest.approx(run.history.evaluations["score"][-1])
    assert fitted.score(X[held], y[held]) > 0.95
    assert run.estimator.score(X[held], y[held]) == run.model.score(scaler.transform(X[held]), y[held])
    with pytest.raises(sklearn.exceptions.NotFittedError):
        check_is_fitted(pipeline[0])


def test_held_out_rows_of_the_users_pass_the_transformers_too() -> None:
    X, y = CANCER
    weights = np.arange(169) + 1.0
    pipeline = make_pipeline(StandardScaler(), SGDClassifier(loss="log_loss", random_state=0, class_weight="balanced"))
    run = scaleml.train(pipeline, X[169:], y[169:], validation=(X[:169], y[:169], weights), workers=2)
    expected = np.average(run.estimator.predict(X[:169]) == y[:169], weights=weights)
    assert run.history.evaluations["score"][-1] == pytest.approx(expected, rel=1e-6)


def test_a_table_with_text_and_missing_values_becomes_a_model_that_predicts_on_tables() -> None:
    rng = np.random.default_rng(0)
    size = rng.normal(size=200)
    table = pd.DataFrame({"colour": rng.choice(["red", "green"], 200), "size": size})
    y = np.where((table["colour"] == "red") ^ (size > 0), "ripe", "not")
    table.loc[::17, "size"] = np.nan
    table["both"] = table["colour"].str.cat(np.where(size > 0, "big", "small"))
    columns = make_column_transformer((OneHotEncoder(), ["colour", "both"]), (SimpleImputer(), ["size"]))
    pipeline = Pipeline([("columns", columns), ("model", SGDClassifier(random_state=0))])
    run = scaleml.train(pipeline, table, y, validation=0.2, workers=2)
    assert run.estimator.score(table, y) > 0.9
    assert set(run.estimator.predict(table.head())) <= {"ripe", "not"}
    again = pickle.loads(pickle.dumps(run.estimator))
    assert_array_equal(again.predict(table), run.estimator.predict(table))


def test_hashed_text_stays_sparse() -> None:
    texts = ["good fine nice", "bad awful sad"] * 30
    y = [1, 0] * 30
    pipeline = make_pipeline(HashingVectorizer(n_features=2**12), SGDClassifier(random_state=0))
    run = scaleml.train(pipeline, texts, y, validation=0.2, workers=2)
    assert scipy.sparse.issparse(run.estimator[0].transform(texts))
    assert run.estimator.predict(["nice", "awful"]).tolist() == [1, 0]
    assert run.model.predict(pipeline[0].transform(["nice", "awful"])).tolist() == [1, 0]


def test_what_is_said_to_train_comes_before_what_the_estimator_says() -> None:
    X, y = IRIS
    clf = SGDClassifier(random_state=4, max_iter=500, batch_size=7, strategy=LocalSGD(2), workers=1)
    run = scaleml.train(clf, X, y)
    assert (run.plan.strategy, run.workers, run.plan.batch_size, run.plan.seed) == (LocalSGD(2), 1, 7, 4)
    assert run.estimator.n_iter_ < 500, "its own rule ended it"
    run = scaleml.train(
        clf, X, y, strategy=AllReduce(), workers=2, batch_size=16, epochs=3, seed=9, optimizer=Adam(0.1)
    )
    assert (run.plan.strategy, run.workers, run.plan.batch_size, run.plan.seed) == (AllReduce(), 2, 16, 9)
    assert (run.plan.optimizer, run.plan.steps, run.estimator.n_iter_) == (Adam(0.1), None, 3)


def test_an_l1_penalty_is_the_models_where_steps_cannot_have_it() -> None:
    X, y = CANCER
    clf = SGDClassifier(penalty="l1", alpha=0.02, random_state=0)
    plain = scaleml.train(make_pipeline(StandardScaler(), clf), X, y, strategy=AllReduce(), workers=2)
    assert (plain.estimator[-1].coef_ == 0).any()
    served = scaleml.train(make_pipeline(StandardScaler(), clf), X, y, strategy=ParameterServer(), workers=2)
    assert served.plan.model.l1 == 0.02


def test_early_stopping_holds_rows_out_and_gives_the_best() -> None:
    X, y = DIGITS
    clf = MLPClassifier((16,), early_stopping=True, validation_fraction=0.2, max_iter=15, random_state=0)
    run = scaleml.train(clf, X / 16, y, workers=2)
    fitted = run.estimator
    held = hold_out(len(X), 0.2, 0)[1]
    assert len(fitted.validation_scores_) == fitted.n_iter_ == 15
    assert fitted.best_validation_score_ == max(fitted.validation_scores_)
    assert fitted.score(X[held] / 16, y[held]) == pytest.approx(fitted.best_validation_score_)


def test_several_labels_a_row() -> None:
    X, y = IRIS
    labels = np.stack([y > 0, y > 1], axis=1).astype(int)
    run = scaleml.train(
        MLPClassifier((10,), random_state=0, batch_size=10, learning_rate_init=0.01),
        X,
        labels,
        epochs=30,
        validation=0.2,
        workers=2,
    )
    assert run.estimator.predict(X).shape == (150, 2)
    assert run.estimator.score(X, labels) > 0.8


def test_a_run_of_a_model_has_no_estimator() -> None:
    run = scaleml.train(LinearModel(), *IRIS, epochs=1, workers=1)
    with pytest.raises(RuntimeError, match="given a model, no estimator"):
        _ = run.estimator


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (sklearn.linear_model.SGDClassifier(), "change its import to 'from scaleml.linear_model import SGDClassifier'"),
        (sklearn.neural_network.MLPRegressor(), "change its import to 'from scaleml.neural_network import MLPRegressor'"),
        (make_pipeline(StandardScaler(), sklearn.linear_model.SGDRegressor()), "the pipeline ends in scikit-learn's own SGDRegressor"),
        (sklearn.ensemble.RandomForestClassifier(), "a RandomForestClassifier, which ranks cannot train: use LinearModel"),
        (SGDClassifier, r"the class SGDClassifier: call it, SGDClassifier\(\)"),
        ("linear", "must be a model object such as"),
    ],
)  # fmt: skip
def test_what_ranks_cannot_train_is_refused_with_what_to_use_instead(model: Any, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        scaleml.train(model, *IRIS)


@pytest.mark.parametrize(
    ("clf", "more", "words"),
    [
        (SGDClassifier(shuffle=False), {}, "ranks train on shuffled"),
        (SGDClassifier(learning_rate="pa1"), {}, "scikit-learn's own"),
        (MLPClassifier(solver="lbfgs"), {}, "scikit-learn's own"),
        (SGDClassifier(alpha=-1), {}, "alpha"),
        (SGDClassifier(), {"epochs": 0}, "epochs=0"),
        (SGDClassifier(), {"validation": 1.5}, "between 0 and 1"),
        (SGDClassifier(), {"validation": 0.001}, "leaves none on one side"),
        (SGDClassifier(), {"validation": (IRIS[0], np.full(150, 7))}, "holds 7.*none of the training classes"),
        (SGDClassifier(), {"validation": (IRIS[0][:, :2], IRIS[1])}, "X has 2 features"),
    ],
)
def test_what_breaks_a_rule_is_refused(clf: Any, more: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        scaleml.train(clf, *IRIS, **more)


def test_an_estimators_own_optimizer_is_used() -> None:
    run = scaleml.train(SGDClassifier(optimizer=SGD(0.3), random_state=0), *IRIS, epochs=2, workers=1)
    assert (run.plan.optimizer, run.plan.steps) == (SGD(0.3), None)
