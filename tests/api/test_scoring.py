"""Scores of held-out rows: scikit-learn's scorers at every evaluation, on the predictions of all ranks."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import pytest
import scipy.sparse
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.dummy import DummyClassifier
from sklearn.metrics import balanced_accuracy_score, f1_score, get_scorer, make_scorer, mean_absolute_error

import scaleml
from scaleml import MLP, SGD, AllReduce, Hogwild, LinearModel, LocalSGD, ParameterServer, Serial
from scaleml.data.split import hold_out
from scaleml.linear_model import SGDClassifier

CANCER_X, CANCER = load_breast_cancer(return_X_y=True)
CANCER_X = (CANCER_X - CANCER_X.mean(axis=0)) / CANCER_X.std(axis=0)
NAMES = np.array(["ill", "well"])[CANCER]
DIGITS_X, DIGITS = load_digits(return_X_y=True)
DIABETES_X, DIABETES = load_diabetes(return_X_y=True)
DIABETES = (DIABETES - DIABETES.mean()) / DIABETES.std()

pytestmark = pytest.mark.usefixtures("embedded")


def peer_of(model: Any) -> Any:
    """Return what scikit-learn's scorers take for the estimator of a trained model."""
    kind = RegressorMixin if model.classes is None else ClassifierMixin
    peer = type("Peer", (kind, BaseEstimator), {"__sklearn_is_fitted__": lambda _: True})()
    for name in ("predict", "predict_proba", "decision_function"):
        setattr(peer, name, getattr(model, name))
    peer.classes_ = model.classes
    return peer


def trained(model: Any, X: Any, y: Any, **more: Any) -> Any:
    usual = {"validation": 0.3, "epochs": 3, "batch_size": 50, "workers": 2, "optimizer": SGD(0.05)}
    return scaleml.train(model, X, y, **{**usual, **more})


@pytest.mark.parametrize(
    "scoring", ["accuracy", "balanced_accuracy", "roc_auc", "neg_log_loss", "neg_brier_score", "average_precision", "matthews_corrcoef"]
)  # fmt: skip
def test_the_last_score_is_scikit_learns_of_the_model(scoring: str) -> None:
    labels = (
        CANCER if scoring in ("neg_brier_score", "average_precision") else NAMES
    )  # they want 1 for the positive class
    run = trained(LinearModel(dtype="float64"), CANCER_X, labels, scoring=scoring)
    held = hold_out(569, 0.3, 0)[1]
    expected = get_scorer(scoring)(peer_of(run.model), CANCER_X[held], labels[held])
    assert run.history.evaluations["score"][-1] == pytest.approx(expected, rel=1e-9)
    assert len(run.history.evaluations["score"]) == 4
    assert run.score_name == scoring


@pytest.mark.parametrize("scoring", ["f1_macro", "roc_auc_ovr", "top_k_accuracy", "neg_log_loss"])
@pytest.mark.parametrize("model", [LinearModel(dtype="float64"), MLP((12,), dtype="float64")], ids=["linear", "MLP"])
def test_several_classes(model: Any, scoring: str) -> None:
    run = trained(model, DIGITS_X / 16, DIGITS, scoring=scoring)
    held = hold_out(1797, 0.3, 0)[1]
    expected = get_scorer(scoring)(peer_of(run.model), DIGITS_X[held] / 16, DIGITS[held])
    assert run.history.evaluations["score"][-1] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("scoring", ["r2", "neg_mean_absolute_error", "neg_root_mean_squared_error", "neg_max_error"])
def test_numbers(scoring: str) -> None:
    run = trained(LinearModel("squared_error", dtype="float64"), DIABETES_X, DIABETES, scoring=scoring)
    held = hold_out(442, 0.3, 0)[1]
    expected = get_scorer(scoring)(peer_of(run.model), DIABETES_X[held], DIABETES[held])
    assert run.history.evaluations["score"][-1] == pytest.approx(expected, rel=1e-9)
    assert run.score_name == {"r2": "R2"}.get(scoring, scoring)
    assert run.baseline_score == (0.0 if scoring == "r2" else None)


@pytest.mark.parametrize(
    "strategy", [Serial(), AllReduce(), LocalSGD(3), ParameterServer("async", servers=2), Hogwild()], ids=repr
)
def test_under_every_strategy_every_evaluation_has_one(strategy: Any) -> None:
    run = trained(LinearModel(dtype="float64"), CANCER_X, CANCER, scoring="balanced_accuracy", strategy=strategy)
    held = hold_out(569, 0.3, 0)[1]
    scores = run.history.evaluations["score"]
    assert scores[0] == pytest.approx(0.5), "nothing is learnt yet: all rows are said to be of one class"
    assert scores[-1] == pytest.approx(balanced_accuracy_score(CANCER[held], run.model.predict(CANCER_X[held])))


def test_weights_of_rows_count_where_the_metric_has_them() -> None:
    weights = np.arange(569) % 7 + 0.5
    held = (CANCER_X[:200], CANCER[:200], weights[:200])
    run = trained(LinearModel(dtype="float64"), CANCER_X[200:], CANCER[200:], validation=held, scoring="f1")
    expected = f1_score(CANCER[:200], run.model.predict(CANCER_X[:200]), sample_weight=weights[:200])
    assert run.history.evaluations["score"][-1] == pytest.approx(expected)


def within(estimator: Any, X: Any, y: Any) -> float:
    """Score by the rows themselves: the accuracy of those whose first column is above 0."""
    some = np.flatnonzero(np.asarray(X[:, [0]].todense() if scipy.sparse.issparse(X) else X[:, [0]]).ravel() > 0)
    return float((estimator.predict(X[some]) == y[some]).mean())


@pytest.mark.parametrize("sparse", [False, True])
def test_a_function_sees_all_held_out_rows(sparse: bool) -> None:
    X = scipy.sparse.csr_matrix(CANCER_X) if sparse else CANCER_X
    run = trained(LinearModel(dtype="float64"), X, NAMES, scoring=within)
    held = hold_out(569, 0.3, 0)[1]
    assert run.history.evaluations["score"][-1] == pytest.approx(within(run.model, X[held], NAMES[held]))
    assert (run.score_name, run.baseline_score) == ("within", None)


def test_what_make_scorer_makes_is_called_by_its_metric() -> None:
    scorer = make_scorer(mean_absolute_error, greater_is_better=False)
    run = trained(LinearModel("squared_error", dtype="float64"), DIABETES_X, DIABETES, scoring=scorer)
    assert run.score_name == "neg_mean_absolute_error"
    assert run.history.evaluations["score"][-1] < 0


def test_rows_of_a_dask_collection_are_scored_where_they_lie() -> None:
    lazy = da.from_array(CANCER_X, chunks=(100, -1)), da.from_array(NAMES, chunks=100)
    held = da.from_array(CANCER_X[:150], chunks=(40, -1)), da.from_array(NAMES[:150], chunks=40)
    run = trained(LinearModel(dtype="float64"), *lazy, validation=held, scoring="roc_auc")
    expected = get_scorer("roc_auc")(peer_of(run.model), CANCER_X[:150], NAMES[:150])
    assert run.history.evaluations["score"][-1] == pytest.approx(expected, rel=1e-9)


def test_an_estimator_is_scored_by_it_too() -> None:
    run = trained(SGDClassifier(random_state=0), CANCER_X, NAMES, optimizer=None, scoring="roc_auc")
    assert run.score_name == "roc_auc"
    assert run.history.evaluations["score"][-1] > 0.97


def test_a_run_that_diverged_has_no_number_for_a_score() -> None:
    with np.errstate(all="ignore"), pytest.raises(scaleml.RunFailed):
        trained(LinearModel("squared_error"), 1e30 * DIABETES_X, DIABETES, optimizer=SGD(1e30), scoring="r2")


# The baseline: what has learnt nothing.


@pytest.mark.parametrize("scoring", [None, "accuracy", "balanced_accuracy", "f1_macro", "neg_log_loss"])
@pytest.mark.parametrize("lazy", [False, True])
def test_the_baseline_is_scikit_learns_dummy(scoring: Any, lazy: bool) -> None:
    rare = DIGITS < 7  # the others rarely, so that there is a largest class
    rows = np.flatnonzero(rare | (np.arange(1797) % 5 == 0))[: 4 * 300]
    X, y = DIGITS_X[rows] / 16, DIGITS[rows] % 3
    held = X[:300], y[:300]
    given = (X[300:], y[300:])
    if lazy:
        given = tuple(da.from_array(part, chunks=(200, *part.shape[1:])) for part in given)
    run = trained(LinearModel(), *given, validation=held, epochs=1, scoring=scoring)
    dummy = DummyClassifier(strategy="prior").fit(X[300:], y[300:])
    assert run.baseline_score == pytest.approx(get_scorer(scoring or "accuracy")(dummy, *held))


def test_the_baseline_of_rows_held_out_of_a_collection() -> None:
    lazy = da.from_array(CANCER_X, chunks=(100, -1)), da.from_array(NAMES, chunks=100)
    run = trained(LinearModel(), *lazy, epochs=1)
    # A model that says "well" of all rows has the share of those rows as its score.
    assert run.baseline_score == pytest.approx(0.63, abs=0.06)
    rows = (569 - run.plan.rows) * run.baseline_score
    assert rows == pytest.approx(round(rows))


def test_without_held_out_rows_there_is_none() -> None:
    run = trained(LinearModel(), CANCER_X, CANCER, validation=None, epochs=1)
    assert (run.score_name, run.baseline_score) == ("accuracy", None)
    run = trained(LinearModel("squared_error"), DIABETES_X, DIABETES, epochs=1)
    assert (run.score_name, run.baseline_score) == ("R2", 0.0)


# What is refused.


@pytest.mark.parametrize(
    ("more", "error", "words"),
    [
        ({"scoring": "acuracy"}, ValueError, "none of scikit-learn's scorers.*accuracy"),
        ({"scoring": ["accuracy", "f1"]}, TypeError, "must be one of scikit-learn's scorers"),
        ({"scoring": "accuracy", "validation": None}, ValueError, "no rows are held out to score"),
        ({"scoring": "neg_log_loss", "model": LinearModel("hinge")}, ValueError, "gives scores, not probabilities"),
    ],
)
def test_what_cannot_be_scored_is_refused_before_the_start(more: dict[str, Any], error: Any, words: str) -> None:
    with pytest.raises(error, match=words):
        trained(**{"model": LinearModel(), "X": CANCER_X, "y": CANCER, **more})


def fails(estimator: Any, X: Any, y: Any) -> float:
    """Raise."""
    raise KeyError("no such column")


def test_a_scorer_that_fails_ends_the_run_in_its_words() -> None:
    with pytest.raises(scaleml.RunFailed, match="no such column"):
        trained(LinearModel(), CANCER_X, CANCER, scoring=fails)
