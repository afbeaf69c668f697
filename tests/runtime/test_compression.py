"""Runs whose gradients are compressed: what they learn, what travels, and the same bits everywhere."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.datasets import load_digits

import scaleml
from runtime import harness
from scaleml.compression import FP16, Int8, OneBit, PowerSGD, RandomK, TopK
from scaleml.models import MLP, Network
from scaleml.optim import SGD
from scaleml.runtime.commands import Command
from scaleml.runtime.serialization import describe
from scaleml.strategies import AllReduce
from scaleml.telemetry import Ledger

TRAINED, EPOCHS = 1200, 8
CODECS = [FP16(), Int8(), OneBit(), TopK(0.01), RandomK(0.05), PowerSGD(1)]
MARGIN = 1.05
"""How much larger the held-out loss may be after the same epochs; after twice as many it is no larger at all."""
DIGITS = {"optimizer": SGD(0.2), "batch_size": 64, "epochs": EPOCHS, "workers": 2}


@cache
def digits():
    x, y = load_digits(return_X_y=True)
    return x / 16, y


def loss(result):
    return result.history.evaluations["loss"][-1]


@pytest.fixture(scope="module")
def plain():
    """Return the held-out loss at the start and at the end, without compression."""
    x, y = digits()
    result = harness.on_threads(
        MLP((48,)), x[:TRAINED], y[:TRAINED], strategy=AllReduce(), validation=(x[TRAINED:], y[TRAINED:]), **DIGITS
    )
    return result.history.evaluations["loss"][[0, -1]]


@pytest.mark.parametrize("codec", CODECS, ids=repr)
def test_it_learns_what_it_learns_without(codec, plain):
    x, y = digits()
    settings = DIGITS | {"strategy": AllReduce(compression=codec), "validation": (x[TRAINED:], y[TRAINED:])}
    result = harness.on_threads(MLP((48,)), x[:TRAINED], y[:TRAINED], **settings | {"epochs": 2 * EPOCHS})
    same, twice = result.history.evaluations["loss"][[EPOCHS, -1]]  # of each epoch, from the start
    assert plain[1] < 0.2 * plain[0]
    assert same < MARGIN * plain[1]
    assert twice < plain[1]


@pytest.mark.parametrize("codec", CODECS, ids=repr)
@pytest.mark.parametrize("workers", [1, 3])
def test_all_ranks_have_the_same_bits_every_time(codec, workers):
    x, y = digits()
    settings = DIGITS | {"strategy": AllReduce(compression=codec), "workers": workers, "epochs": 1, "seed": 3}
    runs = [harness.on_threads(MLP((20,)), x, y, shared_memory=shared, **settings) for shared in (True, False)]
    for run in runs:
        for outcome in run.outcomes:
            assert_array_equal(outcome.params, runs[0].params)


def test_workers_have_the_bits_of_threads(cluster):
    x, y = digits()
    for codec in CODECS:
        settings = DIGITS | {"strategy": AllReduce(compression=codec), "epochs": 1}
        threads = harness.on_threads(MLP((20,)), x, y, **settings)
        assert_array_equal(harness.on_workers(MLP((20,)), x, y, **settings).params, threads.params)


BYTES = {FP16(): 0.51, Int8(): 0.27, OneBit(): 0.04, TopK(0.01): 0.03, RandomK(0.01): 0.015, PowerSGD(1): 0.03}


def test_bytes_are_those_on_the_way(train):
    # Through the ledger of real runs, headers and all; a network of 50,826 parameters.
    x, y = digits()

    def a_step(codec):
        settings = DIGITS | {"epochs": 1, "strategy": AllReduce(compression=codec)}
        if train is harness.on_workers:
            settings["on_worker_lost"] = "raise"  # else residuals go to the next rank, too
        ledger = Ledger(train(MLP((256, 128)), x, y, **settings).history)
        return ledger.bytes_sent / ledger.updates

    dense = a_step(None)
    assert (dense >= 4 * 50_826).all()
    for codec, share in BYTES.items():
        sent = a_step(codec)
        assert (sent <= share * dense).all(), codec
        assert (sent >= 0.3 * share * dense).all(), codec


def test_the_tail_of_a_gradient_travels_exactly(train):
    # Losses, weights and numbers of rows: of the first step, before any difference, to the last bit.
    x, y = digits()
    settings = DIGITS | {"batch_size": len(y), "epochs": 1, "sample_weight": np.linspace(0.1, 2, len(y))}
    histories = [
        train(MLP((20,)), x, y, strategy=AllReduce(compression=c), **settings).history for c in (None, *CODECS)
    ]
    losses = {float(history["loss"][history["updates"] > 0][0]) for history in histories}
    assert len(losses) == 1


def test_a_bad_gradient_names_rank_and_step_and_what_to_do(monkeypatch):
    x, y = digits()
    compute = Network.loss_grad

    def with_a_nan(network, w, x, y, weight, out, *more):
        result = compute(network, w, x, y, weight, out, *more)
        out[7] = np.nan
        return result

    monkeypatch.setattr(Network, "loss_grad", with_a_nan)
    with pytest.raises(ValueError, match=r"rank \d, step 0: item 7 of the gradient is nan.*Divide the learning rate"):
        harness.on_threads(MLP((20,)), x, y, **DIGITS | {"strategy": AllReduce(compression=Int8())})


def test_codecs_change_in_mid_run():
    x, y = digits()
    order = [Int8(), TopK(0.1), PowerSGD(2), None]
    commands = [
        (10 * number, Command(number, "update", {"strategy": describe(AllReduce(compression=codec))}))
        for number, codec in enumerate(order, 1)
    ]
    result = harness.on_threads(
        MLP((48,)), x, y, strategy=AllReduce(), commands=commands, validation=(x, y), **DIGITS | {"epochs": 4}
    )
    assert {number: len(ranks) for number, ranks in result.applied.items()} == dict.fromkeys(range(1, 5), 2)
    assert_array_equal(result.outcomes[0].params, result.outcomes[1].params)
    assert loss(result) < 0.5 * result.history.evaluations["loss"][0]


def test_a_run_is_called_by_its_codec(cluster):
    x, y = digits()
    strategies = [AllReduce(), AllReduce(compression=TopK(0.1))]
    compared = scaleml.compare(MLP((20,)), x, y, strategies, workers=2, epochs=1, repeats=1, all_cores=False)
    names = compared.table()["strategy"].tolist()
    assert names == ["AllReduce()", "AllReduce(compression=TopK(ratio=0.1))"]
    sent = compared.table()["bytes_per_step"]
    assert sent[1] < 0.3 * sent[0]
