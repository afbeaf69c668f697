"""Whatever is trained, a worker that is killed changes no bit of it: modules of frameworks, sparse rows, estimators, comparisons."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from distributed import Client
from numpy.testing import assert_array_equal

import scaleml
from cluster.test_recovery import often, recoveries
from embedded import embedded
from runtime import harness
from scaleml import AllReduce, LocalSGD, Run
from scaleml.api import on_cluster
from scaleml.faults import Kill
from scaleml.linear_model import SGDClassifier
from scaleml.optim import Adam
from scaleml.strategies import Strategy

pytestmark = [pytest.mark.chaos, pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")]
RANDOM = np.random.default_rng(0)
X = RANDOM.standard_normal((600, 7)).astype("f4")
Y = (X[:, 0] + X[:, 1] ** 2 > 0.5).astype(int) + (X[:, 2] > 1)
TEXT = scipy.sparse.random(600, 5000, 0.01, format="csr", random_state=0, dtype="f4")
STEP = 60


@pytest.fixture(scope="module")
def cluster() -> Client:
    return embedded(3)


def torch_model() -> tuple[Any, Any]:
    torch = pytest.importorskip("torch")
    nn = torch.nn

    def make() -> Any:
        return nn.Sequential(nn.Linear(7, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 3))

    return scaleml.TorchModel(make, "cross_entropy"), X


def jax_model() -> tuple[Any, Any]:
    from frameworks import family

    return family.jax_model(), X


def keras_model() -> tuple[Any, Any]:
    keras = pytest.importorskip("keras")

    def make() -> Any:
        layers = [keras.layers.Dense(8), keras.layers.BatchNormalization(), keras.layers.Dropout(0.3)]
        return keras.Sequential([keras.Input((7,)), *layers, keras.layers.Dense(3)])

    return scaleml.KerasModel(make, "cross_entropy"), X


def sparse_model() -> tuple[Any, Any]:
    return scaleml.LinearModel(), TEXT


def estimator() -> tuple[Any, Any]:
    return SGDClassifier("log_loss", random_state=0), X


@pytest.mark.parametrize("strategy", [AllReduce(), LocalSGD(3)], ids=repr)
@pytest.mark.parametrize("make", [torch_model, jax_model, keras_model, sparse_model, estimator])
def test_the_bits_are_those_of_an_undisturbed_run(
    cluster: Client, make: Callable[[], tuple[Any, Any]], strategy: Strategy
) -> None:
    model, rows = make()
    settings: dict[str, Any] = {"epochs": 6, "batch_size": 24, "validation": 0.2, "workers": 2, "strategy": strategy}
    settings |= {"seed": 3} if make != estimator else {}
    settings |= {"optimizer": Adam(0.01)} if make not in (estimator, sparse_model) else {}
    undisturbed = scaleml.train(model, rows, Y, **settings)
    cluster.wait_for_workers(3, timeout=60)
    often(cluster)
    before = set(cluster.scheduler_info(n_workers=-1)["workers"])
    run = scaleml.train(model, rows, Y, faults=[Kill(1, STEP)], **settings)
    assert len(before - set(cluster.scheduler_info(n_workers=-1)["workers"])) == 1, "the fault did not happen"
    (said,) = recoveries(run)
    assert said.startswith("rank 1 replaced: lost at step "), said
    assert_array_equal(run.params, undisturbed.params)
    assert_array_equal(run.history.evaluations["loss"], undisturbed.history.evaluations["loss"])
    assert_array_equal(run.model.predict(rows), undisturbed.model.predict(rows), "buffers, too")
    cluster.wait_for_workers(3, timeout=60)


def strike(client: Client, run: Run) -> None:
    """Kill the worker of the last rank of a run that trains."""
    assert harness.await_condition(lambda: run.over or (run.state == "running" and len(run.history) > 3), 30)
    address = run._driver.placement.addresses[-1]
    os.kill(client.run(os.getpid, workers=[address])[address], signal.SIGKILL)


def test_an_estimators_own_fit_goes_on(cluster: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    launch, runs, strikes = on_cluster.launch, [], []

    def launched(*arguments: Any, **more: Any) -> Run:
        runs.append(launch(*arguments, **more))
        if len(runs) == 2:
            strikes.append(threading.Thread(target=strike, args=(cluster, runs[1])))
            strikes[0].start()
        return runs[-1]

    def fitted() -> SGDClassifier:
        settings: dict[str, Any] = {"max_iter": 100, "tol": None, "random_state": 0, "workers": 2}
        return SGDClassifier("log_loss", strategy=AllReduce(), **settings).fit(X, Y)

    monkeypatch.setattr(on_cluster, "launch", launched)
    cluster.wait_for_workers(3, timeout=60)
    undisturbed, struck = fitted(), fitted()
    strikes[0].join(30)
    assert recoveries(runs[1]), "the fault did not happen"
    assert_array_equal(struck.coef_, undisturbed.coef_)
    assert_array_equal(struck.intercept_, undisturbed.intercept_)
    assert struck.n_iter_ == undisturbed.n_iter_ == 100
    cluster.wait_for_workers(3, timeout=60)


def test_a_comparison_in_one_of_whose_rounds_a_worker_is_killed(cluster: Client) -> None:
    runs: list[Run] = []

    def on_run(run: Run, rows: int) -> None:
        runs.append(run)
        if len(runs) == 4:  # of the first round that counts
            strike(cluster, run)

    settings: dict[str, Any] = {
        "epochs": 60,
        "batch_size": 24,
        "workers": 2,
        "validation": 0.2,
        "optimizer": Adam(0.01),
    }
    cluster.wait_for_workers(3, timeout=60)
    model = scaleml.MLP((4,))
    found = scaleml.compare(model, X, Y, [AllReduce(), LocalSGD(3)], on_run=on_run, repeats=3, **settings)
    (said,) = recoveries(runs[3])
    assert {run.state for run in runs} == {"finished"}
    assert f"changed: {said}; it counts for nothing here" in found.verdict
    plan = runs[3].plan
    undisturbed = scaleml.train(model, X, Y, strategy=plan.strategy, seed=plan.seed, **settings)
    assert_array_equal(runs[3].params, undisturbed.params)
