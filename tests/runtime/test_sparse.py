"""Sparse push and pull: the parameters of whole vectors, the traffic and the work of the non-zeros."""

from __future__ import annotations

import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy.sparse import csr_array, csr_matrix

from runtime import harness
from runtime.test_strategies import BATCH, EPOCHS, L2, ROWS, SHARDS, close, made
from scaleml.api.validation import check_sparse
from scaleml.clock import WALL
from scaleml.data.batches import Batches, Schedule
from scaleml.models import MLP, LinearModel, Signature
from scaleml.optim import SGD, AdaGrad, Adam, Averaged
from scaleml.runtime.commands import Command
from scaleml.runtime.gradient import TAIL, Gradient
from scaleml.runtime.plan import Plan
from scaleml.runtime.sparse_gradient import SparseGradients
from scaleml.runtime.sparsity import why_dense
from scaleml.strategies import AllReduce, Hogwild, Layout, ParameterServer, Serial
from scaleml.telemetry import Ledger

LOSSES = {"binary": "log_loss", "multiclass": "log_loss", "regression": "squared_error"}


def model(kind="binary", penalty="l2", alpha=L2, **settings):
    return LinearModel(LOSSES[kind], penalty=penalty, alpha=alpha, dtype="float64", **settings)


@pytest.mark.parametrize("kind", list(LOSSES))
@pytest.mark.parametrize("servers", [1, 3])
@pytest.mark.parametrize(
    "optimizer",
    [SGD(0.3), SGD(0.5, schedule="invscaling", power_t=0.3), AdaGrad(0.1)],
    ids=["sgd", "falling", "adagrad"],
)
def test_one_worker_gets_the_parameters_of_whole_vectors(kind, servers, optimizer):
    x, y, _ = made(kind)
    penalty = None if isinstance(optimizer, AdaGrad) else "l2"
    settings = {"optimizer": optimizer, "epochs": EPOCHS, "batch_size": BATCH, "workers": 1}
    strategy = ParameterServer(servers=servers, sparse=True)
    dense, sparse, serial, whole = (
        harness.on_threads(model(kind, penalty, 0.1), data, y, strategy=strategy, **settings)
        for data, strategy in (
            (csr_array(x), AllReduce(sparse=False)), (csr_array(x), strategy), (csr_array(x), Serial()), (x, ParameterServer()),
        )
    )  # fmt: skip
    close(sparse.params, dense.params)
    close(serial.params, dense.params)
    close(whole.params, dense.params)


@pytest.mark.parametrize("fit_intercept", [True, False])
def test_bulk_synchronous_workers_do_too(train, fit_intercept):
    x, y, _ = made("multiclass")
    settings = {"optimizer": SGD(0.3), "epochs": EPOCHS, "batch_size": BATCH, "workers": 3, "shards": SHARDS}
    kind = model("multiclass", fit_intercept=fit_intercept)
    dense = train(kind, csr_array(x), y, strategy=AllReduce(sparse=False), **settings)
    sparse = train(kind, csr_array(x), y, strategy=ParameterServer("bsp", servers=2, sparse=True), **settings)
    close(sparse.params, dense.params)


@pytest.mark.parametrize("clip_norm", [None, 0.05])
def test_clipping_sees_the_whole_gradient(clip_norm):
    x, y, _ = made("binary")
    settings = {"optimizer": SGD(0.5, clip_norm=clip_norm), "epochs": EPOCHS, "batch_size": BATCH, "shards": SHARDS}
    kind = model(penalty=None)
    for sparse, dense, workers in (
        (ParameterServer("bsp", servers=2, sparse=True), AllReduce(sparse=False), 3),
        (ParameterServer(servers=2, sparse=True), AllReduce(sparse=False), 1),
    ):
        runs = [
            harness.on_threads(kind, csr_array(x), y, strategy=s, workers=workers, **settings) for s in (sparse, dense)
        ]
        close(runs[0].params, runs[1].params)


def test_a_strong_penalty_decays_to_the_last_bit_of_room():
    # The common factor of all coefficients would leave the range of its type without being multiplied in.
    x, y, _ = made("binary")
    settings = {"optimizer": SGD(0.5), "epochs": 6, "batch_size": 20, "workers": 1}
    kind = model(alpha=0.5)
    strategies = AllReduce(sparse=False), ParameterServer(), AllReduce(sparse=True)
    dense, *sparse = [harness.on_threads(kind, csr_array(x), y, strategy=s, **settings).params for s in strategies]
    for params in sparse:
        close(params, dense)


def test_a_new_batch_size_fetches_what_was_not_asked_for():
    x, y, _ = made("binary")
    command = [(5, Command(1, "update", {"batch_size": 37}))]
    settings = {"optimizer": SGD(0.3), "epochs": EPOCHS, "batch_size": BATCH, "workers": 1, "commands": command}
    strategies = (ParameterServer(servers=2, sparse=False), ParameterServer(servers=2))
    dense, sparse = (harness.on_threads(model(), csr_array(x), y, strategy=s, **settings) for s in strategies)
    assert dense.applied[1] == sparse.applied[1]
    close(sparse.params, dense.params)


@pytest.mark.parametrize(
    "strategy", [ParameterServer("async", servers=2), ParameterServer("ssp", staleness=2)], ids=repr
)
def test_several_workers_learn_and_are_evaluated_on_all_parameters(train, strategy):
    x, y, _ = made("binary")
    result = train(
        model(), csr_array(x), y, strategy=strategy, optimizer=SGD(0.2), workers=3, epochs=6, batch_size=BATCH,
        validation=(csr_array(x[:101]), y[:101]),
    )  # fmt: skip
    losses = result.history.evaluations["loss"]
    z = x[:101] @ result.params[:-1] + result.params[-1]
    assert losses[-1] == pytest.approx(np.mean(np.logaddexp(0, z) - y[:101] * z), rel=1e-9)
    assert losses[-1] < 0.9 * losses[0]
    assert (np.diff(losses) < 0).all()


def hashed(rows, columns, words=20, seed=0):
    """Rows like hashed sentences: few words each, most of them rare."""
    rng = np.random.default_rng(seed)
    indices = (rng.zipf(1.3, rows * words).astype(np.int64) * 2_654_435_761) % columns
    x = csr_matrix(
        (np.ones(rows * words, "f4"), indices.astype(np.int32), np.arange(rows + 1) * words), (rows, columns)
    )
    x.sum_duplicates()
    return x, (x.indices[x.indptr[:-1]] % 2).astype(int)


@pytest.mark.parametrize("strategy", [ParameterServer("async", servers=2), ParameterServer("bsp")], ids=repr)
def test_traffic_follows_the_non_zeros(strategy):
    columns = 2**22
    x, y = hashed(2000, columns)
    result = harness.on_threads(
        LinearModel(), x, y, strategy=strategy, optimizer=SGD(0.5), workers=2, epochs=1, batch_size=100
    )
    ledger = Ledger(result.history)
    pushes = ledger.updates[:2].sum()
    vector = 4 * (columns + 1)
    dense = 2 * vector * pushes  # each pushes and pulls it
    sent = ledger.bytes_sent.sum()
    assert pushes >= 40
    assert sent < 0.02 * dense
    sent -= vector  # the final parameters, to the other worker
    # A push has an index and a value for each column of the rows, an answer a value, and it was asked for by an index.
    assert sent < 1.5 * 16 * x.nnz + 1000 * pushes


def test_a_gradient_touches_nothing_of_the_size_of_the_model():
    columns, rows = 10**7, 200
    x, y = hashed(rows, columns)
    network = LinearModel().build(Signature(columns, sparse=True))
    plan = Plan(network, ParameterServer(), SGD(0.1), Layout(1, 1), (rows,), 1, 50, 0, "float32", 0)
    assert plan.sparse
    recorder = type("Recorder", (), {"compute": 0.0})()
    stamps = SimpleNamespace(step=0, compute_seconds=0.0)
    group = SimpleNamespace(rank=0, step=0, stamps=stamps, clock=WALL)
    batches = Batches(Schedule((rows,)), (0,), [(x, y.astype("f4"), None)])
    base = Gradient(plan, group, batches, np.zeros(TAIL, "f4"), recorder)
    gradients, w = SparseGradients(plan, base, False), np.zeros(network.size, "f4")
    whole = np.zeros(network.size, "f4")
    for step in range(4):
        base.consumed, base.count = 50 * step, 50
        tracemalloc.start()
        found = gradients.compute(w)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 500_000, "a fresh vector of all parameters would take 40 MB"
        part = x[50 * step : 50 * step + 50]
        network.loss_grad(w, part, y[50 * step : 50 * step + 50].astype("f4"), None, whole)
        assert_array_equal(np.flatnonzero(np.bincount(part.indices, minlength=columns)), found.keys[:-1])
        close(found.values[:-TAIL], whole[found.entries], 1e-6)
        w[found.entries] -= 0.1 * found.values[:-TAIL]


DENSE = [
    (LinearModel(penalty="l1"), SGD(0.1), "L1"),
    (LinearModel(), SGD(0.1, momentum=0.9), "momentum"),
    (LinearModel(), Adam(), "moves every coefficient"),
    (LinearModel(penalty=None), Averaged(SGD(0.1)), "moves every coefficient"),
    (LinearModel(), AdaGrad(0.1), "penalty=None"),
    (LinearModel(), SGD(0.1, clip_norm=1.0), "penalty=None"),
    (MLP((3,)), SGD(0.1), "hidden layers"),
]


@pytest.mark.parametrize(("kind", "optimizer", "why"), DENSE)
def test_what_moves_every_coefficient_travels_whole(kind, optimizer, why):
    strategy = ParameterServer(sparse=True)
    reason = why_dense(kind.build(Signature(9, sparse=True)), strategy, optimizer, None)
    assert why in reason
    with pytest.raises(ValueError, match="cannot be sparse here"):
        check_sparse(strategy, reason)


def test_it_is_decided_by_the_data_and_stands_in_the_settings(cluster):
    x, y, _ = made("binary")
    words = {
        repr(optimizer) + type(data).__name__ + repr(strategy): harness.on_workers(
            model(), data, y, strategy=strategy, optimizer=optimizer, epochs=1, batch_size=300
        ).run.settings.partition("float64")[2]
        for data, optimizer, strategy in (
            (x, SGD(0.1), ParameterServer()),
            (csr_array(x), SGD(0.1), ParameterServer()),
            (csr_array(x), SGD(0.1), Hogwild()),
            (csr_array(x), SGD(0.1), AllReduce()),
            (csr_array(x), SGD(0.1), AllReduce(sparse=True)),
            (csr_array(x), Adam(0.1), AllReduce(sparse=True)),
            (csr_array(x), Adam(0.1), ParameterServer()),
        )
    }
    nothing, server, hogwild, full, allreduce, half, adam = words.values()
    assert nothing == ""
    assert server == hogwild == allreduce == ", sparse updates"
    assert (
        full
        == f", dense updates (a batch has {300 * np.count_nonzero(x) / len(x):,.0f} values in 7 columns: no less work)"
    )
    assert half.startswith(", sparse gradients, dense updates (Adam(")
    assert adam.startswith(", dense updates (Adam(")
    with pytest.raises(ValueError, match="X is dense"):
        harness.on_workers(model(), x, y, strategy=ParameterServer(sparse=True))


def test_rows_without_any_value_train_the_intercept():
    y = np.arange(90) % 3 == 0
    runs = [
        harness.on_threads(model(), csr_matrix((90, 4)), y, strategy=strategy, optimizer=SGD(0.5), workers=1)
        for strategy in (AllReduce(sparse=False), Serial(), ParameterServer(), Hogwild())
    ]
    assert runs[0].params[-1] < -0.05
    for run in runs[1:]:
        close(run.params, runs[0].params)


def test_ranks_without_rows_in_a_batch_take_part():
    x, y, _ = made("binary")
    for strategy in (ParameterServer(), ParameterServer("bsp", servers=2), Hogwild(), AllReduce(sparse=True)):
        result = harness.on_threads(model(), csr_array(x), y, strategy=strategy, workers=4, epochs=1, batch_size=2)
        assert Ledger(result.history).samples[:4].sum() >= ROWS
        assert np.isfinite(result.params).all()
