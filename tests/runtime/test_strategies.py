"""All synchronous strategies against plain NumPy, on threads and on Dask workers, dense and sparse."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csr_array

from runtime import harness, reference
from scaleml.models import MLP, LinearModel
from scaleml.optim import SGD, AdaGrad, Adam
from scaleml.strategies import AllReduce, LocalSGD, Serial

ROWS, COLUMNS, SHARDS, BATCH, EPOCHS = 613, 7, 30, 50, 3
L2 = 0.01


def sparse_columns(rng, rows=ROWS):
    return rng.normal(size=(rows, COLUMNS)) * (rng.random((rows, COLUMNS)) < 0.4)


def made(kind, rows=ROWS, seed=3):
    """Return X, y and the outputs: classes that a linear model can half separate, or targets with noise."""
    rng = np.random.default_rng(seed)
    x = sparse_columns(rng, rows)
    z = x @ rng.normal(size=(COLUMNS, 3)) + 0.5 * rng.normal(size=(rows, 3))
    if kind == "binary":
        return x, (z[:, 0] > 0).astype(int), 1
    if kind == "multiclass":
        return x, z.argmax(axis=1), 3
    return x, z, 3


def problem(kind, hidden=(), weight=None, shards=SHARDS, rows=ROWS):
    x, y, outputs = made(kind, rows)
    return reference.Problem(x, y, (COLUMNS, *hidden, outputs), kind, L2, weight, shards)


def linear(kind, dtype="float64"):
    return LinearModel("squared_error" if kind == "regression" else "log_loss", alpha=L2, dtype=dtype)


def start(model, x, y, seed=0):
    """Where training starts: seeded, and not what is tested here."""
    from scaleml.data.source import array_source
    from scaleml.models import Signature

    inputs = array_source(x, y, classifier=model.is_classifier)
    return model.build(Signature(x.shape[1], inputs.n_outputs, inputs.task, model.dtype)).init(seed)


def close(found, expected, rel=1e-10):
    assert_allclose(found, expected, rtol=rel, atol=rel * np.abs(expected).max())


@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
def test_allreduce_is_sgd_on_the_whole_batch(train, storage, ranks):
    x, y, _ = made("binary")
    expected = reference.serial(problem("binary"), np.zeros(COLUMNS + 1), reference.Sgd(0.3, 0.9), EPOCHS, BATCH)
    result = train(
        linear("binary"), storage(x), y, strategy=AllReduce(), optimizer=SGD(0.3, momentum=0.9), workers=ranks,
        shards=SHARDS, epochs=EPOCHS, batch_size=BATCH,
    )  # fmt: skip
    assert np.abs(expected).max() > 0.1, "a start that never moved would equal anything"
    close(result.params, expected)
    for outcome in result.outcomes:
        assert_array_equal(outcome.params, result.params)


@pytest.mark.parametrize("kind", ["multiclass", "regression"])
def test_serial_is_sgd(train, storage, kind):
    x, y, outputs = made(kind)
    w = np.zeros((COLUMNS + 1) * outputs)
    expected = reference.serial(problem(kind, shards=1), w, reference.Sgd(0.1), EPOCHS, BATCH)
    result = train(linear(kind), storage(x), y, strategy=Serial(), optimizer=SGD(0.1), epochs=EPOCHS, batch_size=BATCH)
    close(result.params, expected)


@pytest.mark.parametrize("strategy", [Serial(), AllReduce(), LocalSGD(4)], ids=repr)
def test_the_same_run_twice_has_the_same_bits(train, storage, strategy):
    x, y, _ = made("multiclass")
    runs = [
        train(MLP((6,), dtype="float32"), storage(x), y, strategy=strategy, optimizer=Adam(0.01), workers=3, seed=5)
        for _ in range(2)
    ]
    assert_array_equal(runs[0].params, runs[1].params)
    assert runs[0].params.dtype == np.float32


def test_threads_and_workers_have_the_same_bits(cluster):
    x, y, _ = made("multiclass")
    for strategy in (AllReduce(), LocalSGD(4)):
        settings = {"strategy": strategy, "workers": 3, "shards": 6, "batch_size": BATCH}
        threads = harness.on_threads(MLP((6,)), x, y, **settings)
        assert_array_equal(harness.on_workers(MLP((6,)), x, y, **settings).params, threads.params)


RULES = {
    "sgd": (SGD(0.2), lambda: reference.Sgd(0.2)),
    "momentum": (SGD(0.05, momentum=0.8), lambda: reference.Sgd(0.05, 0.8)),
    "nesterov": (SGD(0.05, momentum=0.8, nesterov=True), lambda: reference.Sgd(0.05, 0.8, nesterov=True)),
    "adam": (Adam(0.02), lambda: reference.Adam(0.02)),
    "adagrad": (AdaGrad(0.1, epsilon=0.01), lambda: reference.AdaGrad(0.1, 0.01)),
    "invscaling": (SGD(0.5, schedule="invscaling", power_t=0.3), lambda: reference.Sgd(lambda t: 0.5 / t**0.3)),
    "optimal": (
        SGD(schedule="optimal", alpha=0.01),
        lambda: reference.Sgd(lambda t: 1 / (0.01 * (0.01**-0.75 + t - 1))),
    ),
    "clipped": (SGD(0.5, momentum=0.5, clip_norm=0.1), lambda: reference.Sgd(0.5, 0.5, clip=0.1)),
}


@pytest.mark.parametrize("kind", ["binary", "multiclass", "regression"])
@pytest.mark.parametrize("rule", list(RULES))
def test_every_optimizer_through_allreduce(rule, kind):
    optimizer, expected_rule = RULES[rule]
    x, y, outputs = made(kind)
    w = np.zeros((COLUMNS + 1) * outputs)
    expected = reference.serial(problem(kind), w, expected_rule(), EPOCHS, BATCH)
    result = harness.on_threads(
        linear(kind), x, y, strategy=AllReduce(), optimizer=optimizer, workers=3, shards=SHARDS, epochs=EPOCHS,
        batch_size=BATCH,
    )  # fmt: skip
    close(result.params, expected)


@pytest.mark.parametrize("kind", ["binary", "multiclass", "regression"])
def test_a_network_through_allreduce(train, storage, kind):
    x, y, _ = made(kind)
    model = MLP((6, 4), "tanh", "squared_error" if kind == "regression" else "log_loss", alpha=L2, dtype="float64")
    expected = reference.serial(problem(kind, (6, 4)), start(model, x, y), reference.Adam(0.02), EPOCHS, BATCH)
    result = train(
        model, storage(x), y, strategy=AllReduce(), optimizer=Adam(0.02), workers=2, shards=SHARDS, epochs=EPOCHS,
        batch_size=BATCH,
    )  # fmt: skip
    close(result.params, expected)


def test_the_adaptive_schedule_divides_alike_on_all_ranks():
    x, y, _ = made("binary")
    optimizer = SGD(1.0, schedule="adaptive", tol=0.5, n_iter_no_change=1)  # no epoch improves by so much but the first
    result = harness.on_threads(
        linear("binary"), x, y, strategy=AllReduce(), optimizer=optimizer, workers=3, shards=SHARDS, epochs=4,
        batch_size=BATCH,
    )  # fmt: skip
    steps = -(-ROWS // BATCH)
    rule = reference.Sgd(lambda t: 1.0 / 5 ** max(0, (t - 1) // steps - 1))
    expected = reference.serial(problem("binary"), np.zeros(COLUMNS + 1), rule, 4, BATCH)
    close(result.params, expected)


@pytest.mark.parametrize("strategy", [AllReduce(), LocalSGD(3)], ids=repr)
def test_sample_weights_count_as_weights(train, storage, strategy):
    x, y, _ = made("binary")
    weight = np.random.default_rng(0).integers(0, 4, ROWS).astype(float)
    weighted = problem("binary", weight=weight)
    if strategy == AllReduce():
        expected = reference.serial(weighted, np.zeros(COLUMNS + 1), reference.Sgd(0.3), EPOCHS, BATCH)
    else:
        rules = [reference.Sgd(0.3) for _ in range(2)]
        expected = reference.local(weighted, np.zeros(COLUMNS + 1), rules, EPOCHS, BATCH, 3)
    result = train(
        linear("binary"), storage(x), y, sample_weight=weight, strategy=strategy, optimizer=SGD(0.3), shards=SHARDS,
        epochs=EPOCHS, batch_size=BATCH,
    )  # fmt: skip
    close(result.params, expected)


@pytest.mark.parametrize(
    ("rows", "batch", "shards"),
    [(613, 10_000, 30), (613, 612, 30), (613, 1, 5), (31, 7, 30), (5, 2, 5), (64, 64, 4), (64, 63, 7)],
)
@pytest.mark.parametrize("strategy", [AllReduce(), LocalSGD(3)], ids=repr)
def test_odd_sizes(strategy, rows, batch, shards):
    x, y, _ = made("regression", rows)
    w = np.zeros((COLUMNS + 1) * 3)
    cut = problem("regression", shards=shards, rows=rows)
    if strategy == AllReduce():
        expected = reference.serial(cut, w, reference.Sgd(0.05, 0.5), 2, batch)
    else:
        expected = reference.local(cut, w, [reference.Sgd(0.05, 0.5) for _ in range(4)], 2, batch, 3)
    result = harness.on_threads(
        linear("regression"), x, y, strategy=strategy, optimizer=SGD(0.05, momentum=0.5), workers=4, shards=shards,
        batch_size=batch,
    )  # fmt: skip
    close(result.params, expected)


def test_dense_and_sparse_agree():
    x, y, _ = made("multiclass")
    params = [
        harness.on_threads(linear("multiclass"), data, y, strategy=AllReduce(), shards=6).params
        for data in (x, csr_array(x))
    ]
    close(params[0], params[1])
