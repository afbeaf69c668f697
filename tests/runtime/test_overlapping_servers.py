"""Pushes that do not wait for the answer to the last one: exact with one worker, accounted for with several."""

from __future__ import annotations

from itertools import islice, pairwise

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from runtime import harness, reference
from runtime.test_parameter_server import totals
from runtime.test_strategies import BATCH, COLUMNS, EPOCHS, ROWS, close, linear, made, problem
from scaleml.compression import Int8
from scaleml.models import MLP, LinearModel
from scaleml.optim import SGD
from scaleml.strategies import ParameterServer, Serial


def late(cut, w, update, steps, batch):
    """SGD whose every gradient, but the first, is of the parameters before the last update."""
    told = [w, w]
    for rows in islice(cut.batches(steps, batch), steps):
        told = [told[1], update(told[1], cut.gradient(told[0], np.concatenate(rows)))]
    return told[1]


@pytest.mark.parametrize("servers", [1, 2])
def test_one_worker_is_sgd_with_gradients_one_update_late(train, storage, servers):
    x, y, _ = made("binary")
    result = train(
        linear("binary"), storage(x), y, strategy=ParameterServer(servers=servers, overlap=True),
        optimizer=SGD(0.3, momentum=0.9), workers=1, epochs=EPOCHS, batch_size=BATCH,
    )  # fmt: skip
    # One push more than the rows are worth: it is under way when the worker learns that the run has them.
    steps = EPOCHS * -(-ROWS // BATCH) + 1
    cut = problem("binary", shards=1)
    close(result.params, late(cut, np.zeros(COLUMNS + 1), reference.Sgd(0.3, 0.9), steps, BATCH))
    pushes, _, staleness = totals(result, 1)
    assert_array_equal(pushes, steps)
    assert_array_equal(staleness[1:], steps - 1)


def test_a_gradient_in_shared_memory_is_left_alone_until_it_was_read(train):
    # 30,000 parameters: read where they lie, while the next gradient is computed.
    x = np.random.default_rng(0).normal(size=(240, 10_000))
    y = x[:, :3].argmax(axis=1)
    settings = {"epochs": 3, "batch_size": 20, "workers": 1, "optimizer": SGD(0.01)}
    model = LinearModel(penalty=None, dtype="float64")
    found, again = (train(model, x, y, strategy=ParameterServer(overlap=True), **settings).params for _ in range(2))
    assert_array_equal(found, again)
    cut = reference.Problem(x, y, (10_000, 3), "multiclass")
    close(found, late(cut, np.zeros(30_003), reference.Sgd(0.01), 3 * 12 + 1, 20))


@pytest.mark.parametrize("workers", [2, 4])
def test_every_push_and_row_is_accounted_for(train, workers):
    x, y, _ = made("binary")
    result = train(
        linear("binary"), x, y, strategy=ParameterServer(servers=2, overlap=True), optimizer=SGD(0.05), workers=workers,
        epochs=EPOCHS, batch_size=BATCH, validation=(x, y),
    )  # fmt: skip
    pushes, rows, staleness = totals(result, workers)
    assert_array_equal(pushes[workers:], pushes[:workers].sum(), "every server applies every push once")
    total = EPOCHS * ROWS
    assert total <= rows < total + 2 * workers * (BATCH // workers + 1)
    # Every push but the first of each worker is staler by at least one of its own.
    assert staleness[-1] >= pushes[:workers].sum() - workers
    assert all(a <= b for a, b in pairwise(result.history.evaluations["samples"]))


def test_it_learns_what_serial_learns(train):
    x, y, _ = made("multiclass")
    settings = {"optimizer": SGD(0.1), "epochs": 8, "batch_size": BATCH, "validation": (x, y)}
    strategies = Serial(), ParameterServer(overlap=True), ParameterServer(overlap=True, compression=Int8())
    losses = [train(MLP((5,), "tanh"), x, y, strategy=s, **settings).history.evaluations["loss"] for s in strategies]
    assert all(loss[-1] < 1.02 * losses[0][-1] < 0.8 * loss[0] for loss in losses)


def test_it_is_refused_where_it_would_break_a_promise():
    for consistency, more in (("bsp", {}), ("ssp", {"staleness": 2})):
        with pytest.raises(ValueError, match="only 'async' may go on"):
            ParameterServer(consistency, overlap=True, **more)
    with pytest.raises(ValueError, match="leave one out"):
        ParameterServer(overlap=True, sparse=True)
    x, y, _ = made("binary")
    plain = harness.on_threads(linear("binary"), x, y, strategy=ParameterServer(overlap=True), epochs=1)
    assert plain.state == "finished"
