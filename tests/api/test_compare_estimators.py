"""Comparisons of an estimator: each run trains it as its fit with that strategy would, and gives it back fitted."""

from __future__ import annotations

import pickle

import pytest
import sklearn.linear_model
from sklearn.datasets import load_breast_cancer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import scaleml
from scaleml import SGD, AllReduce, LocalSGD, Serial, Trial
from scaleml.linear_model import SGDClassifier

X, Y = load_breast_cancer(return_X_y=True)
PIPELINE = make_pipeline(StandardScaler(), SGDClassifier(loss="log_loss", class_weight="balanced", random_state=0))

pytestmark = pytest.mark.usefixtures("embedded")


def test_a_pipeline_is_compared_and_every_run_gives_it_back_fitted() -> None:
    strategies = [Serial(), AllReduce(), Trial(LocalSGD(4), optimizer=SGD(0.2))]
    found = scaleml.compare(
        PIPELINE, X, Y, strategies, workers=2, repeats=1, epochs=4, scoring="roc_auc", all_cores=False
    )
    for run in found.runs:
        assert run.estimator.score(X, Y) > 0.9
        assert (run.score_name, run.baseline_score) == ("roc_auc", 0.5)
        again = pickle.loads(pickle.dumps(run))
        assert (again.estimator.predict(X) == run.estimator.predict(X)).all()
    by_label = {run.label: run.plan for run in found.runs}
    assert by_label["AllReduce()"].steps is not None
    assert by_label["LocalSGD(period=4), SGD(0.2)"].steps is None


def test_without_epochs_its_own_rule_ends_every_run() -> None:
    found = scaleml.compare(PIPELINE, X, Y, [Serial(), AllReduce()], workers=2, repeats=1, all_cores=False)
    assert all(5 <= run.estimator[-1].n_iter_ < 1000 for run in found.runs)


def test_scikit_learns_own_is_refused_with_the_import_to_change() -> None:
    with pytest.raises(TypeError, match=r"from scaleml\.linear_model import SGDClassifier"):
        scaleml.compare(sklearn.linear_model.SGDClassifier(), X, Y, [Serial()])
