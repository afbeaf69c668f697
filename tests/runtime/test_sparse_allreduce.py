"""Sparse gradients under `AllReduce` and `Serial`: the parameters of whole vectors, whatever the optimizer does with the sum."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csr_array

from runtime import harness
from runtime.test_sparse import hashed, model
from runtime.test_strategies import BATCH, COLUMNS, EPOCHS, SHARDS, close, made
from runtime.test_train_state import spoiled_and_restored
from scaleml import faults
from scaleml.comm import CorruptFrame
from scaleml.compression import Int8
from scaleml.models import LinearModel
from scaleml.optim import SGD, AdaGrad, Adam, Averaged, Columns, RowRate, RowSteps
from scaleml.runtime.commands import Command
from scaleml.runtime.errors import NonFinite
from scaleml.runtime.serialization import describe
from scaleml.strategies import AllReduce, LocalSGD, Serial
from scaleml.telemetry import Ledger

WHOLE, TOUCHED = AllReduce(sparse=False), AllReduce(sparse=True)
CASES = [  # kind, penalty, optimizer, whether updates are of what is touched, whether they have the bits of whole ones
    ("binary", None, SGD(0.3), True, True),
    ("multiclass", None, AdaGrad(0.1), True, True),
    ("binary", "l2", SGD(0.5, schedule="invscaling", power_t=0.3), True, False),
    ("multiclass", "l2", SGD(0.3), True, False),
    ("regression", "l2", SGD(0.3, momentum=0.9), False, True),
    ("binary", "l2", Adam(0.05), False, True),
    ("multiclass", "l1", SGD(0.3), False, True),
    ("binary", "l2", AdaGrad(0.1), False, True),
    ("binary", "l2", SGD(0.5, clip_norm=0.05), False, True),
    ("multiclass", None, SGD(0.5, clip_norm=0.05), True, False),
    ("binary", None, Averaged(SGD(0.3)), False, True),
]


def forms(strategy, found):
    """Return what notes the form that every rank's updates have."""

    def prepare(loop):
        optimizer = loop.rank.optimizer
        assert (loop.rank.form.sparse is not None) == (strategy == TOUCHED)
        found.add((optimizer.touches, optimizer.decay is not None))

    return prepare


@pytest.mark.parametrize(("kind", "penalty", "optimizer", "touches", "bits"), CASES)
@pytest.mark.parametrize("ranks", [2, 3, 8])
def test_it_is_the_run_of_whole_vectors(kind, penalty, optimizer, touches, bits, ranks):
    x, y, _ = made(kind)
    found: dict[object, set[object]] = {WHOLE: set(), TOUCHED: set()}
    whole, sparse = (
        harness.on_threads(
            model(kind, penalty, 0.1), csr_array(x), y, strategy=strategy, optimizer=optimizer, workers=ranks, epochs=EPOCHS,
            batch_size=BATCH, shards=SHARDS, simulated=ranks == 8, prepare=forms(strategy, found[strategy]),
            validation=(x, y),
        )
        for strategy in (WHOLE, TOUCHED)
    )  # fmt: skip
    assert found == {WHOLE: {(False, False)}, TOUCHED: {(touches, touches and penalty == "l2")}}
    assert np.abs(whole.params).max() > 0.05, "a start that never moved would equal anything"
    (assert_array_equal if bits else close)(sparse.params, whole.params)
    for outcome in sparse.outcomes:
        assert_array_equal(outcome.params, sparse.params)
        close(outcome.best.params if outcome.best.params is not None else outcome.params, whole.params, 10.0)
    for name in ("loss", "score"):
        assert_allclose(sparse.history.evaluations[name], whole.history.evaluations[name], rtol=1e-9)


def test_on_workers_too(cluster):
    x, y, _ = made("multiclass")
    weights = np.random.default_rng(0).uniform(0.1, 3, len(y))
    settings = {"optimizer": SGD(0.3), "workers": 3, "epochs": EPOCHS, "shards": SHARDS, "sample_weight": weights}
    whole, sparse = (
        harness.on_workers(model("multiclass", fit_intercept=False), csr_array(x), y, strategy=strategy, **settings)
        for strategy in (WHOLE, TOUCHED)
    )
    assert (whole.run.topology, sparse.run.topology) == ("direct", None)
    close(sparse.params, whole.params)


def test_the_steps_of_estimators_are_of_whole_vectors():
    x, y, _ = made("binary")
    steps = RowSteps.measured(
        csr_array(x), Columns(COLUMNS).add(csr_array(x)), RowRate("optimal"), BATCH, len(y), seed=0, intercept=True, curvature=0.25,
        dtype="float64", l1=1e-3,
    )  # fmt: skip
    runs = [
        harness.on_threads(
            model(penalty=None),
            csr_array(x),
            y,
            strategy=strategy,
            optimizer=SGD(1.0),
            workers=3,
            batch_size=BATCH,
            steps=steps,
        )
        for strategy in (WHOLE, TOUCHED)
    ]
    assert_array_equal(runs[1].params, runs[0].params)


def test_the_decay_under_way_is_part_of_the_state():
    x, y, _ = made("binary")
    settings = {"optimizer": SGD(0.3), "workers": 3, "epochs": 2, "batch_size": BATCH, "strategy": TOUCHED}
    happened: set[int] = set()
    undisturbed = harness.on_threads(model(), csr_array(x), y, **settings)
    restored = harness.on_threads(model(), csr_array(x), y, prepare=spoiled_and_restored(7, happened), **settings)
    assert happened == {0, 1, 2}
    assert_array_equal(restored.params, undisturbed.params)
    handed = harness.on_threads(model(), csr_array(x), y, commands=[(5, Command(1, "switch"))], **settings)
    for outcome in handed.outcomes:
        assert not outcome.state.arrays, "who follows has parameters, and nothing that is to be multiplied in"
    rest = harness.on_threads(model(), csr_array(x), y, before=handed.outcomes, **{**settings, "strategy": WHOLE})
    close(rest.params, undisturbed.params)


def test_the_form_follows_strategy_and_batch_size():
    columns = 2**13
    x, y = hashed(900, columns)
    steps = {  # a batch of 3 rows fills few columns, one of 300 too many: 256 values are a 32nd of them
        2: {"strategy": describe(LocalSGD(2))},
        5: {"strategy": describe(AllReduce())},
        10: {"batch_size": 300},
        13: {"batch_size": 3},
        19: {"learning_rate": 0.1},
    }
    commands = [(step, Command(n + 1, "update", change)) for n, (step, change) in enumerate(steps.items())]
    stored = x.nnz / x.shape[0]

    def run(strategy, nonzeros):
        seen = []

        def prepare(loop):
            if loop.rank.world.rank == 0:
                take_step = loop.rank.take_step

                def noted():
                    take_step()
                    seen.append((loop.rank.batch_size, loop.rank.form.sparse is not None))

                loop.rank.take_step = noted

        told = [
            (at, Command(c.number, c.verb, {"strategy": describe(strategy)}) if "AllReduce" in str(c.settings) else c)
            for at, c in commands
        ]
        result = harness.on_threads(
            model(alpha=0.1), x, y, strategy=strategy, optimizer=SGD(0.5), workers=2, epochs=3, batch_size=3, commands=told,
            nonzeros=nonzeros, prepare=prepare,
        )  # fmt: skip
        return result, seen

    whole, _ = run(WHOLE, stored)
    sparse, seen = run(AllReduce(), stored)
    assert set(seen) == {(3, True), (3, False), (300, False)}
    assert seen[-1] == (3, True)
    assert {n: set(at.values()) for n, at in sparse.applied.items()} == {
        n: set(at.values()) for n, at in whole.applied.items()
    }
    close(sparse.params, whole.params)


@pytest.mark.parametrize("strategy", [AllReduce(), Serial()], ids=repr)
@pytest.mark.parametrize("penalty", [None, "l2"])
def test_gradient_noise_is_that_of_whole_vectors(monkeypatch, strategy, penalty):
    monkeypatch.setattr("scaleml.runtime.gradient_noise.measuring_interval", lambda *args, **named: 1)
    x, y, _ = made("multiclass")
    settings = {"optimizer": SGD(0.1), "epochs": 2, "batch_size": BATCH, "workers": strategy.layout(3).workers}
    dense, sparse = (
        harness.on_threads(model("multiclass", penalty, 0.1), data, y, strategy=strategy, **settings).history
        for data in (x, csr_array(x))
    )
    for name in ("noise", "signal", "noise_weight", "biased"):
        assert_allclose(sparse[name].sum(), dense[name].sum(), rtol=1e-7)
    assert sparse["noise_weight"].sum() > 5


def test_traffic_and_memory_of_a_step_follow_the_columns_touched():
    columns, rows, batch = 2**21, 600, 60
    x, y = hashed(rows, columns)
    peaks: list[int] = []

    def prepare(loop):
        rank, take_step = loop.rank, loop.rank.take_step

        def measured():
            is_plain = 3 <= rank.step < min(9, rank.noise.due)  # after the last one ranks leave copies
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            take_step()
            if is_plain:
                peaks.append(tracemalloc.get_traced_memory()[1] - before)

        loop.rank.take_step = measured

    tracemalloc.start()
    try:
        result = harness.on_threads(
            LinearModel(), x, y, strategy=AllReduce(), optimizer=SGD(0.5), workers=2, epochs=1, batch_size=batch,
            prepare=prepare, nonzeros=x.nnz / rows,
        )  # fmt: skip
    finally:
        tracemalloc.stop()
    assert len(peaks) >= 4
    assert max(peaks) < 500_000, "a vector of all parameters takes 8 MB"
    ledger = Ledger(result.history)
    header, item = 88, 4
    # At most every value is of a column of its own: a key and a value each.
    assert 0.3 * 2 * item * x.nnz < ledger.bytes_sent.sum() < 2 * item * (x.nnz + 2 * 4 * 10) + 2 * 10 * header + 1000
    assert ledger.bytes_sent.sum() == pytest.approx(ledger.bytes_received.sum(), rel=0.01)


def test_a_rate_that_no_penalty_stands_is_an_error_and_no_silent_infinity():
    x, y, _ = made("binary")
    for strategy in (WHOLE, TOUCHED, Serial()):
        with pytest.raises(NonFinite):
            harness.on_threads(
                model(alpha=10.0), csr_array(x), y, strategy=strategy, optimizer=SGD(100.0), epochs=20, batch_size=BATCH
            )


@pytest.mark.parametrize("part", ["payload", "header"])
def test_a_corrupt_frame_is_refused(part):
    x, y, _ = made("binary")
    with pytest.raises(CorruptFrame, match="rank 0 got a corrupt frame from rank 1"):
        harness.on_threads(
            model(), csr_array(x), y, strategy=TOUCHED, faults=[faults.CorruptFrame(1, to=0, step=5, part=part)]
        )


@pytest.mark.parametrize("other", [{"overlap": True}, {"topology": "ring"}, {"compression": Int8()}], ids=str)
def test_what_has_a_way_of_its_own_is_of_whole_vectors(other):
    with pytest.raises(ValueError, match="sparse gradients go directly"):
        AllReduce(sparse=True, **other)
    x, y, _ = made("binary")
    runs = []
    for data in (x, csr_array(x)):
        result = harness.on_threads(
            model(), data, y, strategy=AllReduce(**other), optimizer=SGD(0.3), prepare=lambda loop: runs.append(loop.rank.form.sparse)
        )  # fmt: skip
        assert np.isfinite(result.params).all()
    assert set(runs) == {None}
