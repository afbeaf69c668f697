"""Hogwild: exact where one rank trains alone, accounted for where several write one vector, refused where there is none."""

from __future__ import annotations

import dask
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy.sparse import csr_array

from runtime import harness
from runtime.test_strategies import BATCH, EPOCHS, ROWS, SHARDS, close, linear, made
from scaleml.faults import Slow
from scaleml.models import MLP, LinearModel
from scaleml.optim import SGD, AdaGrad, Adam, Averaged
from scaleml.strategies import Hogwild, Serial
from scaleml.telemetry import Ledger


@pytest.fixture(params=["threads", "workers"])
def run(request):
    """Train where memory is shared: on threads, on Dask workers."""
    if request.param == "workers":
        request.getfixturevalue("cluster")
        return harness.on_workers
    return harness.on_threads


@pytest.mark.parametrize("optimizer", [SGD(0.2, momentum=0.9), Adam(0.02, clip_norm=0.5), Averaged(SGD(0.2))], ids=type)
def test_one_rank_is_serial_to_the_bit(run, storage, optimizer):
    x, y, _ = made("multiclass")
    settings = {"optimizer": optimizer, "epochs": EPOCHS, "batch_size": BATCH, "workers": 1}
    serial, wild = (run(MLP((5,), "tanh"), storage(x), y, strategy=s, **settings) for s in (Serial(), Hogwild()))
    assert_array_equal(wild.params, serial.params)


@pytest.mark.parametrize("optimizer", [SGD(0.2), SGD(0.2, clip_norm=0.1), AdaGrad(0.1)], ids=repr)
def test_one_rank_with_sparse_updates_is_serial(optimizer):
    x, y, _ = made("multiclass")
    settings = {"optimizer": optimizer, "epochs": EPOCHS, "batch_size": BATCH, "workers": 1}
    model = LinearModel(penalty=None, dtype="float64")
    serial, wild = (
        harness.on_threads(model, csr_array(x), y, strategy=s, **settings) for s in (Serial(), Hogwild(sparse=True))
    )
    close(wild.params, serial.params)


def test_the_sparse_penalty_is_the_penalty_in_the_mean_over_the_rows():
    # In one batch of all rows the shares of a column's rows add up to the whole penalty.
    x, y, _ = made("binary")
    settings = {"optimizer": SGD(0.5), "epochs": 20, "batch_size": ROWS, "workers": 1}
    model = LinearModel(alpha=0.1, dtype="float64")
    serial, wild = (
        harness.on_threads(model, csr_array(x), y, strategy=s, **settings) for s in (Serial(), Hogwild(sparse=True))
    )
    close(wild.params, serial.params)


@pytest.mark.parametrize("workers", [2, 5])
def test_every_update_and_row_is_accounted_for(run, storage, workers):
    x, y, _ = made("binary")
    result = run(
        linear("binary"), storage(x), y, strategy=Hogwild(), optimizer=SGD(0.1), workers=workers, epochs=EPOCHS,
        batch_size=BATCH,
    )  # fmt: skip
    ledger = Ledger(result.history)
    total = EPOCHS * ROWS
    assert total <= ledger.samples.sum() < total + workers * (BATCH // workers + 1)
    assert (ledger.bytes_sent < 2000).all(), "gradients went over the links"
    # What lies between a rank's updates: each update of another rank is seen once, but for those after its last one.
    updates = ledger.updates.sum()
    seen = (ledger.staleness * ledger.updates).sum()
    assert seen <= (workers - 1) * updates
    assert seen >= (workers - 1) * updates - workers * (workers - 1) * (updates - ledger.updates.min())
    assert np.abs(result.params).max() > 0.1
    for outcome in result.outcomes:
        assert_array_equal(outcome.params, result.params)


def test_it_learns_what_serial_learns(run, storage):
    x, y, _ = made("binary")
    settings = {"optimizer": SGD(0.2), "epochs": 10, "batch_size": BATCH, "validation": (storage(x), y)}
    serial = run(linear("binary"), storage(x), y, strategy=Serial(), **settings).history.evaluations["loss"]
    wild = run(linear("binary"), storage(x), y, strategy=Hogwild(), workers=3, **settings).history.evaluations["loss"]
    assert serial[-1] < 0.9 * serial[0]
    assert wild[-1] < 1.05 * serial[-1]
    assert 2 <= len(wild) <= 11


def test_a_slow_rank_takes_fewer_of_the_updates():
    x, y, _ = made("binary")
    result = harness.on_threads(
        linear("binary"), x, y, strategy=Hogwild(), optimizer=SGD(0.1), workers=2, epochs=4, batch_size=BATCH,
        faults=[Slow(rank=1, factor=100)],
    )  # fmt: skip
    ledger = Ledger(result.history)
    assert ledger.updates[1] < 0.5 * ledger.updates[0], "the fault did not happen"
    assert ledger.staleness[1] > 0
    assert ledger.samples.sum() >= 4 * ROWS


def test_without_shared_memory_it_is_refused():
    x, y, _ = made("binary")
    with pytest.raises(ValueError, match=r"none in common: use ParameterServer\('async'\)"):
        harness.on_threads(linear("binary"), x, y, strategy=Hogwild(), shared_memory=False)


def test_where_it_is_turned_off_it_is_refused_at_the_start(cluster):
    x, y, _ = made("binary")
    with (
        dask.config.set({"scaleml.comm.shared-memory": False}),
        pytest.raises(ValueError, match=r"turned off .* use ParameterServer\('async'\)"),
    ):
        harness.on_workers(linear("binary"), x, y, strategy=Hogwild())


def test_across_hosts_it_is_refused_at_the_start(cluster, monkeypatch):
    from scaleml.api import validation

    x, y, _ = made("binary")
    real = validation.hosts_of
    boots = iter("abcdefgh")
    monkeypatch.setattr(
        validation,
        "hosts_of",
        lambda client, workers, facts: {w: {**f, "boot": next(boots)} for w, f in real(client, workers, facts).items()},
    )
    with pytest.raises(ValueError, match=r"on 2 hosts: use ParameterServer\('async'\)"):
        harness.on_workers(linear("binary"), x, y, strategy=Hogwild())


def test_a_rate_that_needs_the_epochs_loss_is_refused(cluster):
    x, y, _ = made("binary")
    with pytest.raises(ValueError, match="'adaptive'"):
        harness.on_workers(linear("binary"), x, y, strategy=Hogwild(), optimizer=SGD(0.1, schedule="adaptive"))


def test_it_streams_rows_that_are_counted_first(cluster):
    x, y, _ = made("binary")
    with dask.config.set({"scaleml.memory-share": 0.0}):
        result = harness.on_workers(
            linear("binary"), csr_array(x), y, strategy=Hogwild(sparse=True), shards=SHARDS, epochs=3
        )
    assert result.run.model.score(x, y) > 0.6
