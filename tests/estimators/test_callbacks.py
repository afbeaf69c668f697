"""Callbacks of estimators: those of ``train`` beside scikit-learn's, where scikit-learn keeps its own."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from callbacks.scripted import Remembers
from embedded import embedded
from scaleml import AllReduce
from scaleml.linear_model import LogisticRegression, Ridge, SGDClassifier
from scaleml.neural_network import MLPClassifier

X = np.random.default_rng(0).standard_normal((300, 4))
Y = (X[:, 0] > 0).astype(int)


class Follows(Remembers):
    every = 0.01

    def on_start(self, run):
        self.note("start", dict(run.parameters))

    def on_end(self, run):
        assert run.summary()
        assert repr(run.label)
        self.note("end", run.state, run.error, run.params)


class Epochs:
    """A callback of scikit-learn's."""

    def __init__(self):
        self.ends = 0

    def setup(self, estimator, context):
        pass

    def on_fit_task_begin(self, estimator, context, **facts):
        pass

    def on_fit_task_end(self, estimator, context, **facts):
        self.ends += 1

    def teardown(self, estimator, context):
        pass


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("kind", [SGDClassifier, MLPClassifier])
def test_a_fit_in_this_process_is_told_and_no_other_for_it(kind, no_leaks):
    settings = {"batch_size": 30, "max_iter": 4, "n_iter_no_change": 9, "random_state": 0, "early_stopping": True}
    callback, theirs = Follows(), Epochs()
    told = kind(**settings).set_callbacks(callback, theirs).fit(X, Y)
    alone = kind(**settings).fit(X, Y)
    assert np.array_equal(told.predict(X), alone.predict(X))
    assert told.n_iter_ == alone.n_iter_ == 4
    ((parameters,),) = callback.of("start")
    assert {"batch_size": 30, "epochs": 4, "rows": 270, "workers": 1}.items() <= parameters.items()
    assert max(step for (steps,) in callback.of("rows") for step in steps) == 4 * 9
    assert [step for (step,) in callback.of("evaluation")] == [0, 9, 18, 27, 36]
    ((state, error, params),) = callback.of("end")
    assert (state, error, params.size) == ("finished", None, parameters["n_params"])
    assert theirs.ends == 4 + 1, "epochs, and the fit"


class Stops(Follows):
    def on_evaluation(self, run, evaluation):
        run.stop()


@pytest.mark.parametrize("where", ["here", "workers"])
def test_a_callback_may_end_a_fit(where):
    there = {"batch_size": 30}
    if where == "workers":
        embedded(2)
        there |= {"strategy": AllReduce(), "workers": 2}
    callback = Stops()
    settings = {"max_iter": 10_000, "tol": None, "n_iter_no_change": 10_000, "early_stopping": True, "random_state": 0}
    clf = SGDClassifier(**settings, **there).set_callbacks(callback).fit(X, Y)
    assert clf.n_iter_ < 10_000
    assert clf.score(X, Y) > 0.5
    assert [state for state, *_ in callback.of("end")] == ["stopped"]


OWN_CODE = [
    LogisticRegression(),
    LogisticRegression(verbose=2),
    Ridge(),
    SGDClassifier(learning_rate="pa1", eta0=1.0),
    MLPClassifier(solver="lbfgs", max_iter=300),
]


@pytest.mark.parametrize("estimator", OWN_CODE, ids=repr)
def test_of_scikit_learns_own_code_start_and_end_are_told(estimator):
    callback = Follows()
    told, alone = clone(estimator).set_params(), clone(estimator)
    for each in (told, alone):
        if "random_state" in each.get_params():
            each.set_params(random_state=0)
    told.set_callbacks(callback).fit(X, Y)
    assert np.array_equal(told.predict(X), alone.fit(X, Y).predict(X))
    assert [note[0] for note in callback.notes] == ["start", "end"]
    assert callback.of("end") == [("finished", None, None)]
    assert callback.of("start")[0][0].items() >= {"strategy": "scikit-learn"}.items()


def test_a_fit_that_fails_is_told_so():
    callback = Follows()
    clf = MLPClassifier(solver="sgd", learning_rate_init=1e300, max_iter=9).set_callbacks(callback)
    with pytest.raises(ValueError, match="diverged"):
        clf.fit(X, Y)
    ((state, error, _),) = callback.of("end")
    assert state == "failed"
    assert "NonFinite" in error


@pytest.mark.parametrize("kind", [Ridge, LogisticRegression])
def test_ranks_that_take_all_rows_are_followed(kind):
    embedded(2)
    callback = Follows()
    kind(strategy=AllReduce(), workers=2).set_callbacks(callback).fit(X, Y)
    assert callback.of("start")[0][0]["workers"] == 2
    assert callback.of("rows")
    assert [state for state, *_ in callback.of("end")] == ["finished"]


def test_clones_and_searches_keep_them_and_none_removes_them():
    callback = Follows()
    clf = SGDClassifier(batch_size=30, max_iter=2, tol=None).set_callbacks(callback)
    GridSearchCV(clone(clf), {"alpha": [1e-4, 1e-3]}, cv=2).fit(X, Y)
    assert len(callback.of("start")) == len(callback.of("end")) == 5
    clf.set_callbacks().fit(X, Y)
    assert len(callback.of("start")) == 5
    with pytest.raises(TypeError, match="FitCallback"):
        clf.set_callbacks(print)
