"""Local SGD whose averages are compressed, and codecs that come and go in mid-run."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from runtime import harness
from runtime.test_compression import CODECS, DIGITS, MARGIN, TRAINED, digits, loss
from scaleml.compression import FP16, Int8, OneBit, PowerSGD, TopK
from scaleml.models import MLP
from scaleml.optim import SGD
from scaleml.runtime.commands import Command
from scaleml.runtime.serialization import describe
from scaleml.strategies import AllReduce, LocalSGD
from scaleml.telemetry import Ledger


def train_digits(strategy, **settings):
    x, y = digits()
    settings = {**DIGITS, "validation": (x[TRAINED:], y[TRAINED:]), **settings}
    return harness.on_threads(MLP((48,)), x[:TRAINED], y[:TRAINED], strategy=strategy, **settings)


@pytest.fixture(scope="module")
def plain():
    return loss(train_digits(LocalSGD(4)))


@pytest.mark.parametrize("codec", [FP16(), Int8(), OneBit(), TopK(0.05), PowerSGD(2)], ids=repr)
def test_it_learns_what_it_learns_without(codec, plain):
    assert loss(train_digits(LocalSGD(4, compression=codec))) < MARGIN * plain


@pytest.mark.parametrize("codec", CODECS, ids=repr)
def test_all_ranks_have_the_same_bits_every_time(codec):
    strategy = LocalSGD(3, outer=SGD(0.7, momentum=0.9, nesterov=True), start_after=2, compression=codec)
    runs = [train_digits(strategy, workers=3, epochs=1, shared_memory=shared) for shared in (True, False)]
    for run in runs:
        for outcome in run.outcomes:
            assert_array_equal(outcome.params, runs[0].params)
    assert np.isfinite(runs[0].params).all()


def test_without_loss_it_is_the_average():
    # All items, as they are: the only difference is in the rounding.
    plain = train_digits(LocalSGD(5), epochs=2, workers=3)
    coded = train_digits(LocalSGD(5, compression=TopK(1.0)), epochs=2, workers=3)
    assert_allclose(coded.params, plain.params, atol=1e-4)


def test_bytes_are_a_period_apart_and_compressed():
    x, y = digits()

    def sent(strategy):
        ledger = Ledger(harness.on_threads(MLP((256, 128)), x, y, strategy=strategy, **DIGITS | {"epochs": 2}).history)
        return ledger.bytes_sent / ledger.updates

    assert (sent(LocalSGD(4, compression=TopK(0.01))) < 0.03 * sent(LocalSGD(4))).all()
    assert (sent(LocalSGD(4)) < 0.3 * sent(AllReduce())).all()


def test_one_average_cannot_be_compressed():
    with pytest.raises(ValueError, match=r"compression=Int8\(\) with period=None: .* give a period"):
        LocalSGD(None, compression=Int8())
    with pytest.raises(ValueError, match="compression='int8'"):
        LocalSGD(4, compression="int8")


def test_codecs_and_strategies_change_in_mid_run():
    x, y = digits()
    order = [
        AllReduce(compression=Int8()),
        LocalSGD(4, compression=TopK(0.1)),
        AllReduce(compression=PowerSGD(2)),
        LocalSGD(4),
        AllReduce(),
    ]
    commands = [
        (10 * number, Command(number, "update", {"strategy": describe(strategy)}))
        for number, strategy in enumerate(order, 1)
    ]
    result = harness.on_threads(
        MLP((48,)), x, y, strategy=AllReduce(), commands=commands, validation=(x, y), **DIGITS | {"epochs": 4}
    )
    assert {number: len(ranks) for number, ranks in result.applied.items()} == dict.fromkeys(range(1, 6), 2)
    assert_array_equal(result.outcomes[0].params, result.outcomes[1].params)
    assert loss(result) < 0.5 * result.history.evaluations["loss"][0]
