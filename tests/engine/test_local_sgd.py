"""Local SGD against plain NumPy: who averages what, and when."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from engine import harness, reference
from engine.test_strategies import BATCH, COLUMNS, EPOCHS, ROWS, SHARDS, close, linear, made, problem, start
from scaleml.models import MLP
from scaleml.optim import SGD, Adam
from scaleml.strategies import AllReduce, LocalSGD

STEPS = EPOCHS * -(-ROWS // BATCH)


@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
@pytest.mark.parametrize("period", [1, 4, STEPS - 1, STEPS, 1000])
def test_local_sgd_averages_every_period_and_at_the_end(period, ranks):
    x, y, _ = made("binary")
    rules = [reference.Sgd(0.3, 0.9) for _ in range(ranks)]  # one a rank: momentum stays local
    expected = reference.local(problem("binary"), np.zeros(COLUMNS + 1), rules, EPOCHS, BATCH, period)
    result = harness.on_threads(
        linear("binary"), x, y, strategy=LocalSGD(period), optimizer=SGD(0.3, momentum=0.9), workers=ranks,
        shards=SHARDS, epochs=EPOCHS, batch_size=BATCH,
    )  # fmt: skip
    close(result.params, expected)
    for outcome in result.outcomes:
        assert_array_equal(outcome.params, result.params)


def test_local_sgd_everywhere(train, storage):
    x, y, _ = made("multiclass")
    model = MLP((5,), "tanh", alpha=0.01, dtype="float64")
    rules = [reference.Adam(0.02) for _ in range(3)]
    expected = reference.local(problem("multiclass", (5,)), start(model, x, y), rules, EPOCHS, BATCH, 4)
    result = train(
        model, storage(x), y, strategy=LocalSGD(4), optimizer=Adam(0.02), workers=3, shards=SHARDS, epochs=EPOCHS,
        batch_size=BATCH,
    )  # fmt: skip
    close(result.params, expected)


def test_momentum_that_were_shared_would_show():
    # The oracle of the tests above must be able to fail: with momentum averaged too, another result.
    cut = problem("binary")
    private = reference.local(cut, np.zeros(COLUMNS + 1), [reference.Sgd(0.3, 0.9) for _ in range(2)], EPOCHS, BATCH, 4)
    shared = reference.serial(cut, np.zeros(COLUMNS + 1), reference.Sgd(0.3, 0.9), EPOCHS, BATCH)
    assert np.abs(private - shared).max() > 1e-6


def test_a_period_of_one_with_equal_parts_is_allreduce():
    # 600 rows in 3 equal shards, batches of 60: every rank has 20 rows of each, so means of means are means.
    x, y, _ = made("regression", rows=600)
    params = [
        harness.on_threads(
            linear("regression"), x, y, strategy=strategy, optimizer=SGD(0.1), workers=3, shards=3, batch_size=60
        ).params
        for strategy in (AllReduce(), LocalSGD(1))
    ]
    close(params[1], params[0])
