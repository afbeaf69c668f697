"""Strategies x (dense, CSR) x (threads, Dask workers) x (no fault, a slow rank, a long way): one table for all."""

from __future__ import annotations

import pytest
from numpy.testing import assert_array_equal

from family.strategies import STRATEGIES, WAIT_FOR_NOBODY
from runtime.test_strategies import BATCH, SHARDS, linear, made
from scaleml.faults import Latency, Slow
from scaleml.optim import SGD
from scaleml.strategies import Serial
from scaleml.telemetry import Ledger

RANKS, LATE = 2, 0.06
FAULTS = {
    "no fault": [],
    "slow": [Slow(rank=RANKS - 1, factor=40)],
    "latency": [Latency(rank=RANKS - 1, seconds=LATE, until=8)],
}


@pytest.mark.parametrize("strategy", STRATEGIES, ids=repr)
def test_every_strategy_learns_whatever_happens(train, storage, strategy):
    x, y, _ = made("multiclass")
    rank = strategy.layout(RANKS).workers - 1
    found = {}
    for name, plan in FAULTS.items():
        plan = [fault for fault in plan if fault.rank == rank]
        result = train(
            linear("multiclass"), storage(x), y, strategy=strategy, optimizer=SGD(0.2), workers=RANKS, shards=SHARDS,
            epochs=2, batch_size=BATCH, validation=(x, y), faults=plan,
        )  # fmt: skip
        assert result.state == "finished"
        losses = result.history.evaluations["loss"]
        assert losses[-1] < 0.85 * losses[0], f"{name}: it did not learn: {losses}"
        assert result.history.marks == [] if not plan else [text for _, text in result.history.marks] == [repr(plan[0])]
        found[name] = result
    ledgers = {name: Ledger(result.history) for name, result in found.items()}
    if strategy.synchronous:
        for name, result in found.items():
            assert_array_equal(
                result.params, found["no fault"].params, f"{name} changed the result, not only the speed"
            )
    if strategy != Serial():
        slow = ledgers["slow"]
        gradient = slow.compute[: rank + 1] / slow.updates[: rank + 1].clip(1)
        assert gradient[rank] > 2 * gradient[:rank].max(), "nobody was slow"
        if strategy not in WAIT_FOR_NOBODY:
            assert ledgers["latency"].comm.sum() > 0.9 * LATE, "the way was not long"
