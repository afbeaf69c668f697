"""Trained models, against scikit-learn's estimators given the same coefficients."""

from __future__ import annotations

import pickle
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import scipy.special
from distributed import Client
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neural_network import MLPClassifier

import scaleml
from cluster.conftest import Problem
from scaleml import MLP, SGD, LinearModel

ROOT = Path(__file__).resolve().parents[2]


# The trained model, against scikit-learn's estimators given the same coefficients.


def trained(threads: Client, model: Any, X: Any, y: Any) -> Any:
    return scaleml.train(model, X, y, client=threads, epochs=3, optimizer=SGD(0.05)).model


def check_classifier(model: Any, peer: Any, X: Any, scores: bool = True) -> None:
    np.testing.assert_array_equal(model.predict(X), peer.predict(X))
    np.testing.assert_allclose(model.predict_proba(X), peer.predict_proba(X), rtol=1e-9, atol=1e-12)
    if scores:
        np.testing.assert_allclose(model.decision_function(X), peer.decision_function(X), rtol=1e-9, atol=1e-12)
    assert model.score(X, peer.predict(X)) == 1.0


@pytest.mark.parametrize("labels", [["no", "yes"], [3, 5, 9]])
def test_a_linear_classifier_predicts_as_scikit_learns_does(threads: Client, problem: Problem, labels: Any) -> None:
    X, y = problem.X, np.asarray(labels)[np.argsort(np.argsort(problem.X[:, 0])) * len(labels) // 203]
    model = trained(threads, LinearModel(dtype="float64"), X, y)
    peer = LogisticRegression()
    outputs = 1 if len(labels) == 2 else len(labels)
    peer.coef_ = model.params[: 6 * outputs].reshape(6, outputs).T
    peer.intercept_, peer.classes_ = model.params[6 * outputs :], np.unique(y)
    check_classifier(model, peer, X)
    np.testing.assert_array_equal(model.classes, np.unique(y))
    expected = -np.mean(np.log(peer.predict_proba(X)[np.arange(203), np.searchsorted(peer.classes_, y)]))
    np.testing.assert_allclose(model.loss(X, y), expected, rtol=1e-9)
    weights = np.arange(203.0)
    np.testing.assert_allclose(model.score(X, y, weights), peer.score(X, y, weights), rtol=1e-12)


def test_a_network_predicts_as_scikit_learns_does(threads: Client, problem: Problem) -> None:
    X, y = problem.X, np.array(["a", "b", "c"])[np.argsort(np.argsort(problem.X[:, 1])) * 3 // 203]
    model = trained(threads, MLP((5,), dtype="float64"), X, y)
    peer = MLPClassifier((5,)).partial_fit(X, y, classes=["a", "b", "c"])
    w = model.params
    peer.coefs_ = [w[:30].reshape(6, 5), w[35:50].reshape(5, 3)]
    peer.intercepts_ = [w[30:35], w[50:53]]
    check_classifier(model, peer, X, scores=False)
    np.testing.assert_allclose(
        scipy.special.softmax(model.decision_function(X), axis=1), peer.predict_proba(X), rtol=1e-9
    )


@pytest.mark.parametrize("targets", [1, 2])
def test_a_regression_predicts_as_scikit_learns_does(threads: Client, problem: Problem, targets: int) -> None:
    X = problem.X
    y = X[:, 0] + 1 if targets == 1 else X[:, :2] * 2 - 1
    model = trained(threads, LinearModel("squared_error", dtype="float64"), X, y)
    peer = LinearRegression()
    coefficients = model.params[: 6 * targets].reshape(6, targets).T
    peer.coef_, peer.intercept_ = (
        (coefficients[0], model.params[6]) if targets == 1 else (coefficients, model.params[12:])
    )
    np.testing.assert_allclose(model.predict(X), peer.predict(X), rtol=1e-9, atol=1e-12)
    assert model.predict(X).shape == y.shape
    np.testing.assert_allclose(model.score(X, y), peer.score(X, y), rtol=1e-6)
    assert model.classes is None


def test_it_predicts_many_rows_in_parts_and_takes_any_kind_of_X(threads: Client, problem: Problem) -> None:
    model = trained(threads, LinearModel(dtype="float64"), problem.X, problem.y)
    many = np.tile(problem.X, (400, 1))
    assert len(many) > 65536
    np.testing.assert_array_equal(model.predict(many), np.tile(model.predict(problem.X), 400))
    np.testing.assert_array_equal(model.predict(problem.X.tolist()), model.predict(problem.X))
    np.testing.assert_allclose(
        model.predict_proba(scipy.sparse.csc_matrix(problem.X)), model.predict_proba(problem.X), rtol=1e-12
    )
    assert model.predict(problem.X[:0]).shape == (0,)
    for wrong in (problem.X[:, :5], problem.X[0]):
        with pytest.raises(ValueError, match=r"this model was trained on 6 features: pass \(rows, 6\)"):
            model.predict(wrong)


def test_it_can_be_pickled_and_needs_no_dask(threads: Client, problem: Problem, tmp_path: Path) -> None:
    y = np.array(["no", "yes"])[problem.y]
    model = trained(threads, LinearModel(), problem.X, y)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict(problem.X), model.predict(problem.X))
    assert repr(again) == repr(model)
    (tmp_path / "model").write_bytes(pickle.dumps((model, problem.X)))
    code = """
    import pickle, sys
    model, X = pickle.load(open(sys.argv[1], "rb"))
    print(*model.predict(X))
    print([name for name in ("distributed", "dask") if name in sys.modules])
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "model")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [" ".join(model.predict(problem.X)), "[]"]


def test_a_run_that_left_no_parameters_has_no_model(threads: Client, problem: Problem) -> None:
    run = scaleml.start(**problem.endless(client=threads))
    try:
        with pytest.raises(RuntimeError, match=r"the run is \w+ and has no parameters; wait\(\) for its end"):
            _ = run.model
    finally:
        run.stop()
    assert run.model.predict(problem.X).shape == (203,)


@pytest.mark.parametrize("kind", ["linear", "mlp", "torch"])
def test_columns_in_another_order_or_of_other_names_are_refused(threads: Client, kind: str) -> None:
    import dask.dataframe as dd
    import pandas as pd

    table = pd.DataFrame(np.random.default_rng(0).normal(size=(80, 3)).astype("f4"), columns=list("abc"))
    y = (table["a"] > 0).to_numpy().astype(int)
    if kind == "torch":
        torch = pytest.importorskip("torch")
        chosen: Any = scaleml.TorchModel(torch.nn.Linear(3, 2), loss="cross_entropy")
    else:
        chosen = LinearModel() if kind == "linear" else MLP((4,))
    run = scaleml.train(chosen, table, y, client=threads, epochs=1)
    lazily = dd.from_pandas(table, npartitions=2)
    for model in (run.model, pickle.loads(pickle.dumps(run.model)), run.last_model.snapshot()):
        assert model.feature_names == ("a", "b", "c")
        expected = model.predict(table)
        np.testing.assert_array_equal(model.predict(table.to_numpy()), expected)
        np.testing.assert_array_equal(model.predict(pd.DataFrame(table.to_numpy())), expected)  # numbered is nameless
        np.testing.assert_array_equal(model.predict(lazily).compute(scheduler="sync"), expected)
        for wrong, why in ((["b", "a", "c"], "in another order than those"), (["a", "c"], "lacks 'b', unlike those")):
            for X in (table[wrong], lazily[wrong]):
                for call in (model.predict, model.predict_proba, model.decision_function):
                    with pytest.raises(ValueError, match=f"{why} this model was trained on, 'a', 'b', 'c'"):
                        call(X)
                for judge in (model.score, model.loss):
                    with pytest.raises(ValueError, match=why):
                        judge(X, y)


def test_a_model_of_nameless_columns_takes_frames_by_place(threads: Client, problem: Problem) -> None:
    import pandas as pd

    X, y = problem.X, problem.X[:, 0] > 0
    model = trained(threads, LinearModel(), X, y)
    named = pd.DataFrame(X, columns=list("fedcba"))
    assert model.feature_names is None
    np.testing.assert_array_equal(model.predict(named), model.predict(X))
    numbered = trained(threads, LinearModel(), pd.DataFrame(X), y)
    np.testing.assert_array_equal(numbered.predict(named), numbered.predict(X))
    with pytest.raises(ValueError, match="in another order"):
        numbered.predict(pd.DataFrame(X)[[1, 0, 2, 3, 4, 5]])
