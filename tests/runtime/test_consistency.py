"""The server's three consistency models: bulk synchronous is one process, stale synchronous has a bound that is kept."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from runtime import harness, reference
from runtime.test_strategies import BATCH, COLUMNS, EPOCHS, ROWS, RULES, SHARDS, close, linear, made, problem
from scaleml.faults import Slow
from scaleml.models import MLP
from scaleml.optim import SGD, Adam
from scaleml.runtime.parameter_server.client import ParameterServerClient
from scaleml.runtime.parameter_server.shared_client import SharedMemoryClient
from scaleml.runtime.parameter_server.worker_clocks import WorkerClocks
from scaleml.runtime.parameter_server.worker_connections import WorkerConnections
from scaleml.strategies import AllReduce, ParameterServer, Serial
from scaleml.telemetry import Ledger


@pytest.mark.parametrize("servers", [1, 3])
def test_bulk_synchronous_servers_are_sgd_on_the_whole_batch(train, storage, servers):
    x, y, _ = made("binary")
    expected = reference.serial(problem("binary"), np.zeros(COLUMNS + 1), reference.Sgd(0.3, 0.9), EPOCHS, BATCH)
    result = train(
        linear("binary"), storage(x), y, strategy=ParameterServer("bsp", servers=servers),
        optimizer=SGD(0.3, momentum=0.9), workers=3, shards=SHARDS, epochs=EPOCHS, batch_size=BATCH,
    )  # fmt: skip
    close(result.params, expected)
    ledger = Ledger(result.history)
    clocks = EPOCHS * -(-ROWS // BATCH)
    assert_array_equal(ledger.updates, clocks, "one update a clock")
    assert_array_equal(ledger.staleness, 0)
    for outcome in result.outcomes[:3]:
        assert_array_equal(outcome.params, result.params)


@pytest.mark.parametrize("rule", list(RULES))
def test_every_optimizer_through_bulk_synchronous_servers(rule):
    optimizer, expected_rule = RULES[rule]
    x, y, outputs = made("multiclass")
    w = np.zeros((COLUMNS + 1) * outputs)
    expected = reference.serial(problem("multiclass"), w, expected_rule(), EPOCHS, BATCH)
    result = harness.on_threads(
        linear("multiclass"), x, y, strategy=ParameterServer("bsp", servers=2), optimizer=optimizer, workers=3,
        shards=SHARDS, epochs=EPOCHS, batch_size=BATCH,
    )  # fmt: skip
    close(result.params, expected)


@pytest.mark.parametrize(
    ("rows", "batch", "shards"), [(613, 10_000, 30), (61, 1, 5), (31, 7, 30), (5, 2, 5), (64, 63, 7)]
)
def test_bulk_synchronous_servers_with_odd_sizes(rows, batch, shards):
    # Ranks without rows in a batch push nothing, in step; the momentum is that of the clocks.
    x, y, _ = made("regression", rows)
    cut = problem("regression", shards=shards, rows=rows)
    expected = reference.serial(cut, np.zeros((COLUMNS + 1) * 3), reference.Sgd(0.05, 0.5), 2, batch)
    result = harness.on_threads(
        linear("regression"), x, y, strategy=ParameterServer("bsp", servers=2), optimizer=SGD(0.05, momentum=0.5),
        workers=4, shards=shards, batch_size=batch,
    )  # fmt: skip
    close(result.params, expected)


def test_the_same_bulk_synchronous_run_twice_has_the_same_bits(train):
    x, y, _ = made("multiclass")
    runs = [
        train(MLP((6,)), x, y, strategy=ParameterServer("bsp", servers=2), optimizer=Adam(0.01), workers=3)
        for _ in range(2)
    ]
    assert_array_equal(runs[0].params, runs[1].params)


@pytest.mark.parametrize("consistency", ["bsp", "async"])
def test_a_batch_that_weighs_nothing_is_no_update(consistency):
    x, y, _ = made("binary")
    weight = np.ones(ROWS)
    weight[np.random.default_rng(0).random(ROWS) < 0.9] = 0  # most batches of five rows have no weight at all
    settings = {
        "sample_weight": weight,
        "optimizer": SGD(0.3, momentum=0.9),
        "epochs": 2,
        "batch_size": 5,
        "workers": 1,
    }
    serial = harness.on_threads(linear("binary"), x, y, strategy=Serial(), **settings)
    served = harness.on_threads(linear("binary"), x, y, strategy=ParameterServer(consistency, servers=2), **settings)
    assert_array_equal(served.params, serial.params)
    ledger = Ledger(served.history)
    assert 0 < ledger.updates[1] < 0.6 * ledger.updates[0]
    assert ledger.samples[0] == 2 * ROWS


@pytest.mark.parametrize(("staleness", "servers"), [(0, 2), (3, 1)])
def test_the_bound_is_used_and_never_exceeded(train, staleness, servers):
    # The servers assert it at every push.
    x, y, _ = made("binary")
    result = train(
        linear("binary"), x, y, strategy=ParameterServer("ssp", staleness=staleness, servers=servers),
        optimizer=SGD(0.1), workers=3, batch_size=BATCH, faults=[Slow(rank=1, factor=30)],
    )  # fmt: skip
    widest = result.outcomes[0].widest if result.outcomes else result.run.outcome.widest
    assert widest == staleness, "the others did not run ahead of the slow rank, or too far"
    ledger = Ledger(result.history)
    # Between a worker's pull and its push no other can have pushed more often than that.
    assert (ledger.staleness[:3] <= 2 * (2 * staleness + 1)).all()
    assert np.ptp(ledger.updates[:3]) <= staleness + 1


@pytest.mark.parametrize("servers", [1, 2])
def test_workers_that_wait_are_called_to_evaluations_and_wait_on(monkeypatch, storage, servers):
    waits, real = [], ParameterServerClient.wait
    monkeypatch.setattr(ParameterServerClient, "wait", lambda self, w: (waits.append(1), real(self, w)))
    x, y, _ = made("binary")
    result = harness.on_threads(
        linear("binary"), storage(x), y, strategy=ParameterServer("ssp", staleness=1, servers=servers),
        optimizer=SGD(0.1), workers=3, epochs=6, batch_size=BATCH, validation=(x[:101], y[:101]),
        faults=[Slow(rank=1, factor=30)],
    )  # fmt: skip
    assert waits, "nobody was called away from its waiting"
    assert result.outcomes[0].widest == 1
    assert 6 <= len(result.history.evaluations["loss"]) <= 7
    assert result.history.evaluations["loss"][-1] < np.log(2)
    assert Ledger(result.history).samples[:3].sum() >= 6 * ROWS


def test_without_a_bound_the_others_run_ahead():
    x, y, _ = made("binary")
    result = harness.on_threads(
        linear("binary"), x, y, strategy=ParameterServer(), optimizer=SGD(0.1), workers=3, epochs=4, batch_size=BATCH,
        faults=[Slow(rank=1, factor=30)],
    )  # fmt: skip
    assert result.outcomes[0].widest > 4


def test_a_push_beyond_the_bound_is_a_broken_invariant():
    clocks = WorkerClocks(2)
    for _ in range(3):
        clocks.tick(0, 2)
    with pytest.raises(RuntimeError, match="rank 0 pushed 3 clocks ahead of the slowest; 2 are allowed"):
        clocks.tick(0, 2)


@pytest.mark.parametrize(("aware", "rate"), [(False, 1.0), (True, 0.25)])
def test_staleness_divides_the_rate_if_asked_for(aware, rate):
    applied, push = [], SimpleNamespace(gradient=np.ones(2), staleness=4)
    clients = SimpleNamespace(receive=lambda: push, applied=lambda push: None, answer=lambda w, ahead: None)
    optimizer = SimpleNamespace(apply=lambda w, g, state, scale: applied.append(scale))
    server = ParameterServer("async", staleness_aware=aware)
    server.serve(np.zeros(2), {}, SimpleNamespace(clients=clients, optimizer=optimizer))
    assert applied == [rate]


@pytest.mark.parametrize("shared_memory", [True, False])
@pytest.mark.parametrize("aware", [False, True])
def test_staleness_aware_steps_are_smaller(monkeypatch, aware, shared_memory):
    # All gradients are 1: what the parameters have moved is the sum of the rates.
    found, late = [], threading.Event()

    def noting(real):
        def applied(self, push):
            found.append(push.staleness)
            if len(found) == 20:
                late.set()
            real(self, push)

        return applied

    def hold(rank, step, command_queue):  # one worker's push comes after many others'
        assert rank != 1 or step != 3 or late.wait(60)

    for place in (SharedMemoryClient, WorkerConnections):
        monkeypatch.setattr(place, "applied", noting(place.applied))
    rows = 400
    x, y = np.ones((rows, 1)), np.full(rows, 1e9)
    model = linear("regression").__class__("epsilon_insensitive", penalty=None, fit_intercept=False, dtype="float64")
    strategy = ParameterServer("async", staleness_aware=aware)
    result = harness.on_threads(
        model, x, y, strategy=strategy, optimizer=SGD(1.0), workers=4, batch_size=4, hook=hold,
        shared_memory=shared_memory,
    )  # fmt: skip
    ledger = Ledger(result.history)
    assert ledger.updates[4] == len(found)
    assert ledger.staleness[4] * len(found) == pytest.approx(sum(found))
    assert max(found) > 10
    expected = sum(1 / max(1, staleness) for staleness in found) if aware else len(found)
    assert result.params[0] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"consistency": "eventual"}, "'bsp', 'ssp', 'async'"),
        ({"consistency": "ssp"}, "staleness=4, say"),
        ({"consistency": "ssp", "staleness": -1}, "0 or more"),
        ({"consistency": "ssp", "staleness": 1.5}, "integer"),
        ({"consistency": "async", "staleness": 2}, "only 'ssp' has a bound"),
        ({"consistency": "bsp", "staleness_aware": True}, "nothing is ever stale"),
        ({"servers": 0}, "positive integer"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, match):
    with pytest.raises(ValueError, match=match):
        ParameterServer(**settings)


def test_its_repr_recreates_it():
    for strategy in (ParameterServer("ssp", staleness=2, servers=3), ParameterServer("bsp"), ParameterServer()):
        assert eval(repr(strategy)) == strategy


def test_bulk_synchronous_evaluations_are_those_of_allreduce(train):
    x, y, _ = made("binary")
    settings = {"workers": 3, "epochs": 3, "batch_size": BATCH, "shards": SHARDS, "validation": (x[:101], y[:101])}
    first, second = (
        train(linear("binary"), x, y, strategy=strategy, **settings).history.evaluations
        for strategy in (AllReduce(), ParameterServer("bsp", servers=2))
    )
    close(second["loss"], first["loss"])
    assert_array_equal(second["samples"], first["samples"])
