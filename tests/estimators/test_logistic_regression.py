"""LogisticRegression on ranks and on Dask data: scikit-learn's coefficients, its refusals, its contract."""

import pickle
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csr_matrix
from sklearn import linear_model as sk
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from sklearn.preprocessing import scale

from scaleml import AllReduce, LocalSGD, RunFailed, Serial, train
from scaleml.linear_model import LogisticRegression, SGDClassifier
from scaleml.optim import LBFGS

pytestmark = pytest.mark.usefixtures("cluster")
DIGITS = load_digits(return_X_y=True)
FEW = DIGITS[0][DIGITS[1] < 4][:600] / 16, DIGITS[1][DIGITS[1] < 4][:600]
CANCER = scale(load_breast_cancer().data), np.array(["benign", "malign"])[load_breast_cancer().target]
RNG = np.random.default_rng(7)
WEIGHTS = RNG.uniform(0, 3, 600)
HASHED = csr_matrix((RNG.random((600, 300)) < 0.05) * RNG.standard_normal((600, 300)))
OF_HASHED = HASHED @ RNG.standard_normal(300) > 0
CASES: dict[str, tuple[Any, Any, dict[str, Any], Any]] = {
    "four classes": (*FEW, {}, None),
    "two": (*CANCER, {}, None),
    "weights and classes' weights": (*FEW, {"class_weight": "balanced", "C": 0.1}, WEIGHTS),
    "a dict of weights": (*CANCER, {"class_weight": {"benign": 3.0}, "fit_intercept": False}, None),
    "no penalty": (CANCER[0][:, :4], CANCER[1], {"C": np.inf}, None),
    "one weight": (*CANCER, {}, 2.5),
    "CSR": (HASHED, OF_HASHED, {"C": 10.0}, None),
    "float32": (CANCER[0].astype("f4"), CANCER[1], {}, None),
    "cut off": (*FEW, {"max_iter": 7}, None),
}


def lazily(values: Any, size: int = 200) -> Any:
    if isinstance(values, csr_matrix):
        return lazily(values.toarray(), size).map_blocks(csr_matrix)
    return values if values is None or np.ndim(values) == 0 else da.from_array(values, chunks=(size, *values.shape[1:]))


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("where", ["ranks", "Dask"])
@pytest.mark.parametrize("case", CASES)
def test_coefficients_are_scikit_learns(case, where):
    X, y, settings, weights = CASES[case]
    theirs = sk.LogisticRegression(**settings).fit(X, y, weights)
    if where == "ranks":
        ours = LogisticRegression(strategy=AllReduce(), workers=2, **settings).fit(X, y, weights)
    else:  # X, y and the weights in other partitions
        ours = LogisticRegression(workers=2, **settings).fit(lazily(X), lazily(y, 170), lazily(weights, 90))
    close = 1e-6 if theirs.coef_.dtype == np.float64 else 2e-2
    for name in ("coef_", "intercept_"):
        found, right = getattr(ours, name), getattr(theirs, name)
        assert found.dtype == right.dtype
        assert_allclose(found, right, rtol=close, atol=close)
    assert_array_equal(ours.classes_, theirs.classes_)
    assert ours.classes_.dtype == theirs.classes_.dtype
    assert_array_equal(ours.n_iter_, theirs.n_iter_)
    lazy = ours.predict_proba(lazily(X, 250))
    assert isinstance(lazy, da.Array)
    assert_allclose(lazy.compute(scheduler="synchronous"), theirs.predict_proba(X), atol=10 * close)
    assert ours.score(lazily(X), lazily(y, 170)) == pytest.approx(theirs.score(X, y), abs=3 / len(y))


def test_little_data_is_scikit_learns_own_to_the_bit_also_with_its_other_solvers():
    for settings in ({}, {"solver": "newton-cholesky"}, {"solver": "saga", "l1_ratio": 1.0, "C": 0.1, "max_iter": 20}):
        settings = {**settings, "random_state": 0, "tol": 0.1}
        ours = LogisticRegression(**settings).fit(*CANCER)
        assert_array_equal(ours.coef_, sk.LogisticRegression(**settings).fit(*CANCER).coef_)
        assert_array_equal(pickle.loads(pickle.dumps(ours)).predict(CANCER[0]), ours.predict(CANCER[0]))


def test_a_table_keeps_its_names_and_labels_their_kind():
    frame = pd.DataFrame(CANCER[0][:, :4], columns=list("abcd"))
    ours = LogisticRegression(strategy=Serial()).fit(frame, pd.Series(CANCER[1]))
    assert_array_equal(ours.feature_names_in_, list("abcd"))
    assert_allclose(ours.coef_, sk.LogisticRegression().fit(frame, CANCER[1]).coef_, atol=1e-8)


def test_a_warm_start_goes_on_where_the_last_fit_ended():
    X, y = FEW
    settings = {"strategy": AllReduce(), "workers": 2, "warm_start": True}
    ours = LogisticRegression(**settings).fit(X, y)
    ours.fit(X, y)
    assert ours.n_iter_[0] <= 2
    with pytest.raises(ValueError, match="warm_start=True, but coef_ has shape"):
        ours.fit(X[:, :9], y)


def test_an_unfinished_fit_warns_and_says_what_helps():
    for clf, X, y in [
        (LogisticRegression(strategy=AllReduce(), max_iter=3), *FEW),
        (LogisticRegression(max_iter=3), lazily(FEW[0]), lazily(FEW[1])),
    ]:
        with pytest.warns(ConvergenceWarning, match="Scale the columns of X.*increase max_iter=3"):
            clf.fit(X, y)
        assert_array_equal(clf.n_iter_, [3])


def test_what_ranks_lack_is_refused_with_a_remedy():
    X, y = lazily(CANCER[0]), CANCER[1]
    for settings, says in [
        ({"solver": "saga"}, r"solver='saga' with a Dask collection.*use solver='lbfgs', or pass X.compute\(\)"),
        ({"l1_ratio": 0.5}, r"l1_ratio=0.5 with a Dask collection.*SGDClassifier"),
        ({"dual": True}, "dual=True"),
        ({"strategy": LocalSGD(4)}, r"use AllReduce\(\) without compression"),
        ({"C": -1.0}, "'C' parameter"),
    ]:
        with pytest.raises(ValueError, match=says):
            LogisticRegression(**settings).fit(X, y)
    there = LogisticRegression(strategy=AllReduce())
    with pytest.raises(ValueError, match="solver='sag' with strategy=AllReduce"):
        clone(there).set_params(solver="sag").fit(*CANCER)
    with pytest.raises(ValueError, match="one class only"):
        clone(there).fit(CANCER[0], np.zeros(len(y)))
    with pytest.raises(ValueError, match="Negative values"):
        clone(there).fit(*CANCER, np.full(len(y), -1.0))
    with pytest.raises(TypeError, match=r"LinearModel\(alpha=1 / \(C \* len\(X\)\)\) with optimizer=LBFGS\(\)"):
        train(there, *CANCER)
    with pytest.raises(ValueError, match=r"use scaleml\.linear_model\.LogisticRegression"):
        SGDClassifier(optimizer=LBFGS()).fit(*CANCER)


def test_deprecated_settings_warn_on_ranks_as_they_do_in_scikit_learn():
    for settings in ({"penalty": "l2"}, {"l1_ratio": None}, {"n_jobs": 2}):
        for kind, more in ((sk.LogisticRegression, {}), (LogisticRegression, {"strategy": Serial()})):
            with pytest.warns(FutureWarning):
                kind(**settings, **more).fit(*CANCER)


def test_what_overflows_is_told_and_never_a_silent_model():
    X, y = np.full((40, 2), 1e200), np.arange(40) % 2
    X[::2] *= -1
    for kind, settings in ((sk.LogisticRegression, {}), (LogisticRegression, {"strategy": AllReduce(), "workers": 2})):
        with pytest.warns(ConvergenceWarning):
            assert not kind(**settings).fit(X, y).coef_.any()
    with pytest.raises(RunFailed, match="the gradient is not finite"):
        LogisticRegression(workers=2).fit(lazily(X * 1e107, 10), y)


def test_a_search_over_ranks_finds_what_scikit_learns_finds():
    grid = {"C": [1e-4, 1.0]}
    theirs = GridSearchCV(sk.LogisticRegression(), grid, cv=2).fit(*CANCER)
    ours = GridSearchCV(LogisticRegression(strategy=AllReduce(), workers=1), grid, cv=2).fit(*CANCER)
    assert ours.best_params_ == theirs.best_params_
    assert_allclose(ours.cv_results_["mean_test_score"], theirs.cv_results_["mean_test_score"])


@pytest.mark.parametrize("strategy", ["auto", AllReduce()], ids=repr)
def test_verbose_shows_a_line_an_evaluation(strategy, capsys):
    LogisticRegression(verbose=2, strategy=strategy).fit(*CANCER)
    assert "LogisticRegression" in capsys.readouterr().out
