"""The asynchronous parameter server: exact where it can be exact, accounted for to the last push where it cannot."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from runtime import harness, reference
from runtime.test_strategies import BATCH, COLUMNS, EPOCHS, ROWS, close, linear, made, problem
from scaleml.models import MLP
from scaleml.optim import SGD, Adam
from scaleml.strategies import ParameterServer, Serial
from scaleml.telemetry import Ledger


def totals(result, workers):
    """Return the pushes by rank, the rows of the ranks that train, and the sum of staleness by rank."""
    ledger = Ledger(result.history)
    return ledger.updates, ledger.samples[:workers].sum(), ledger.staleness * ledger.updates


@pytest.mark.parametrize("servers", [1, 2, 3])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_one_worker_is_serial_to_the_bit(train, storage, servers, dtype):
    x, y, _ = made("multiclass")
    settings = {"optimizer": Adam(0.02, clip_norm=0.5), "epochs": EPOCHS, "batch_size": BATCH, "workers": 1}
    model = MLP((5,), "tanh", dtype=dtype)
    serial = train(model, storage(x), y, strategy=Serial(), **settings)
    served = train(model, storage(x), y, strategy=ParameterServer(servers=servers), **settings)
    assert_array_equal(served.params, serial.params)
    pushes, rows, staleness = totals(served, 1)
    assert rows == EPOCHS * ROWS
    assert_array_equal(pushes, EPOCHS * -(-ROWS // BATCH))
    assert_array_equal(staleness, 0)


def test_one_worker_is_the_reference():
    x, y, _ = made("binary")
    expected = reference.serial(
        problem("binary", shards=1), np.zeros(COLUMNS + 1), reference.Sgd(0.3, 0.9), EPOCHS, BATCH
    )
    result = harness.on_threads(
        linear("binary"), x, y, strategy=ParameterServer(servers=2), optimizer=SGD(0.3, momentum=0.9), workers=1,
        epochs=EPOCHS, batch_size=BATCH,
    )  # fmt: skip
    close(result.params, expected)


@pytest.mark.parametrize(("workers", "servers"), [(2, 1), (3, 2), (5, 1)])
def test_every_push_and_row_and_version_is_accounted_for(train, workers, servers):
    x, y, _ = made("binary")
    result = train(
        linear("binary"), x, y, strategy=ParameterServer(servers=servers), optimizer=SGD(0.1), workers=workers,
        epochs=EPOCHS, batch_size=BATCH,
    )  # fmt: skip
    pushes, rows, staleness = totals(result, workers)
    made_by_workers = pushes[:workers].sum()
    assert_array_equal(pushes[workers:], made_by_workers, "every server applies every push once")
    # The run ends with the push that completes the rows; what was under way then still counts.
    total = EPOCHS * ROWS
    assert total <= rows < total + workers * (BATCH // workers + 1)
    # Each worker's last push is among the last `workers`, for the answer to any of those says that the run has its
    # rows. So, with v pushes in all, what lies between a worker's pushes adds up to exactly this.
    v = made_by_workers
    expected = (workers - 1) * v - workers * (workers - 1) / 2
    assert staleness[:workers].sum() == pytest.approx(expected, abs=1e-6)
    assert staleness[-1] == pytest.approx(expected, abs=1e-6)
    assert (staleness >= 0).all()


def test_it_learns_what_serial_learns(train, storage):
    x, y, _ = made("binary")
    cut = problem("binary")
    settings = {"optimizer": SGD(0.2), "epochs": 10, "batch_size": BATCH}

    def loss(w):
        z = cut.x @ w[:-1] + w[-1]
        return np.mean(np.logaddexp(0, z) - cut.y * z) + reference_penalty(w)

    def reference_penalty(w):
        return 0.5 * cut.l2 * float(w[:-1] @ w[:-1])

    start = loss(np.zeros(COLUMNS + 1))
    serial = loss(train(linear("binary"), storage(x), y, strategy=Serial(), **settings).params)
    served = loss(train(linear("binary"), storage(x), y, strategy=ParameterServer(), workers=3, **settings).params)
    assert serial < 0.9 * start
    assert served < 1.05 * serial


def test_ranks_without_rows_in_a_batch_take_part():
    x, y, _ = made("binary")
    result = harness.on_threads(
        linear("binary"), x, y, strategy=ParameterServer(), optimizer=SGD(0.1), workers=5, epochs=1, batch_size=2
    )
    _, rows, _ = totals(result, 5)
    assert rows >= ROWS
    assert np.isfinite(result.params).all()


def test_evaluations_come_in_step_and_do_not_count_as_training(train):
    x, y, _ = made("binary")
    result = train(
        linear("binary"), x, y, strategy=ParameterServer(servers=2), optimizer=SGD(0.1), workers=3, epochs=4,
        batch_size=BATCH, validation=(x[:101], y[:101]),
    )  # fmt: skip
    found = result.history.evaluations
    assert 4 <= len(found["loss"]) <= 5  # the start, after each epoch but the last unless the run was over, the end
    assert found["loss"][0] == pytest.approx(np.log(2))
    assert found["loss"][-1] < found["loss"][0]
    for column in ("time", "samples"):
        assert (np.diff(found[column]) >= 0).all()
    assert found["samples"][-1] == Ledger(result.history).samples[:3].sum()
    z = x[:101] @ result.params[:-1] + result.params[-1]
    assert found["loss"][-1] == pytest.approx(np.mean(np.logaddexp(0, z) - y[:101] * z), rel=1e-9)
    assert found["score"][-1] == pytest.approx(np.mean((z > 0) == y[:101]))


def test_servers_leave_together():
    # A server that is done must not look like a lost one to another that still waits for a worker to leave.
    x, y, _ = made("binary", rows=40)
    for _ in range(40):
        result = harness.on_threads(
            linear("binary"), x, y, strategy=ParameterServer(servers=4), workers=2, epochs=1, batch_size=20
        )
        assert result.state == "finished"
