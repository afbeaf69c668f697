"""Every strategy's steps on eight simulated ranks: the numbers of real ones, and the time that the table of costs says."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from family.strategies import STRATEGIES
from runtime import harness
from scaleml.comm.conventions import part
from scaleml.comm.simulated import Costs
from scaleml.models import MLP
from scaleml.optim import SGD
from scaleml.strategies import AllReduce, LocalSGD, Serial
from scaleml.strategies.context import TAIL
from scaleml.telemetry import Ledger

RANKS, ROWS, BATCH, EPOCHS = 8, 320, 40, 2
STEPS = EPOCHS * ROWS // BATCH
COSTS = Costs(latency=1e-3, bandwidth=1e6)
RANDOM = np.random.default_rng(0)
X = RANDOM.standard_normal((ROWS, 6))
Y = (X[:, 0] + X[:, 1] ** 2 > 0.5).astype(int)


def trained(strategy: object, simulated: bool | Costs, **more: object) -> harness.Result:
    workers = 1 if isinstance(strategy, Serial) else RANKS
    return harness.on_threads(
        MLP((5,), dtype="float64"), X, Y, strategy=strategy, simulated=simulated, workers=workers, optimizer=SGD(0.2, momentum=0.5),
        epochs=EPOCHS, batch_size=BATCH, **more,
    )  # fmt: skip


@pytest.mark.parametrize("strategy", STRATEGIES, ids=repr)
def test_simulated_ranks_train_as_real_ones_do(strategy):
    simulated = trained(strategy, COSTS)
    assert simulated.state == "finished"
    assert np.isfinite(simulated.params).all()
    assert Ledger(simulated.history).samples.sum() >= EPOCHS * ROWS
    assert_array_equal(trained(strategy, COSTS).params, simulated.params, "simulated time has one order of things")
    if strategy.synchronous:
        assert_array_equal(simulated.params, trained(strategy, False).params)


@pytest.mark.parametrize("topology", ["direct", "ring", "halving"])
def test_a_run_takes_as_long_as_its_all_reduces(topology):
    """Computing takes no virtual time: what is left are the steps' all-reduces."""
    result = trained(AllReduce(topology=topology), COSTS)
    n = 8 * (len(result.params) + TAIL)
    latency, bandwidth = COSTS.latency, COSTS.bandwidth
    parts = [8 * (stop - start) for start, stop in (part(RANKS, rank, n // 8) for rank in range(RANKS))]
    one = {
        "direct": latency + (RANKS - 1) * n / bandwidth,  # short: everybody sends all of it to everybody
        "ring": 2 * (RANKS - 1) * (latency + max(parts) / bandwidth),  # the largest part goes round twice
        "halving": math.log2(RANKS) * (latency + n / bandwidth),
    }[topology]
    seconds = result.history["time"].max()
    assert seconds == pytest.approx(STEPS * one, rel=1e-9)


@pytest.mark.parametrize("topology", ["ring", "halving", "hierarchical"])
def test_topologies_have_the_same_bits_in_simulated_time(topology):
    strategy = AllReduce(topology=topology)
    assert_array_equal(trained(strategy, COSTS).params, trained(strategy, False).params)


def test_local_steps_talk_once_a_period():
    four, eight = (trained(LocalSGD(period), COSTS).history["time"].max() for period in (4, 8))
    assert four == pytest.approx(2 * eight, rel=1e-9)
