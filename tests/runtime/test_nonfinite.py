"""Rows whose loss or gradient is not finite are left out where that is wanted, as if they weighed nothing; else they end the run."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from models.toy import Toy
from runtime import harness
from scaleml import AllReduce, Gossip, Hogwild, LocalSGD, ParameterServer, Serial
from scaleml.compression import Int8, TopK
from scaleml.optim import Adam
from scaleml.runtime.errors import NonFinite

RANDOM = np.random.default_rng(5)
ROWS, BATCH = 160, 16
X = RANDOM.standard_normal((ROWS, 4))
Y = (X @ RANDOM.standard_normal(4) > 0).astype(int)
X[[3, 90], 0] = 1000.0  # the rows that a model of here cannot cope with
STRATEGIES = [
    (Serial(), 1),
    (AllReduce(), 2),
    (AllReduce(topology="ring"), 3),
    (AllReduce(compression=TopK(0.5)), 2),
    (AllReduce(compression=Int8()), 2),
    (LocalSGD(3), 2),
    (Gossip(), 2),
    (ParameterServer("bsp"), 2),
    (ParameterServer("bsp", servers=2), 3),
]
ASYNCHRONOUS = [
    (ParameterServer("async"), 2),
    (ParameterServer("ssp", staleness=2), 2),
    (Hogwild(), 2),
    (Gossip(asynchronous=True), 2),
]


class Poisoned(Toy):
    """A model that fails on some rows, by its loss or by its gradient alone; or takes them for rows without weight."""

    how = "loss"

    def build(self, signature: Any) -> Any:
        flat = super().build(signature)
        own, how = flat.loss_grad, self.how

        def loss_grad(w: Any, x: Any, y: Any, weights: Any, out: Any, ready: Any = None) -> Any:
            is_poisoned = bool((np.asarray(x)[:, 0] > 100).any())
            if is_poisoned and how == "weightless":
                out[:] = 0
                return 0.0, 0.0
            loss, weight = own(w, np.where(np.asarray(x) > 100, 0, x), y, weights, out)
            if is_poisoned:
                out[1] = np.nan if how == "gradient" else out[1]
                loss = np.inf if how == "loss" else loss
            if ready is not None:
                ready(slice(0, len(out)))
            return loss, weight

        flat.loss_grad = loss_grad
        return flat


def trained(how: str, strategy: Any, workers: int, x: Any = X, **more: Any) -> harness.Result:
    model = Poisoned()
    object.__setattr__(model, "how", how)
    settings = {"optimizer": Adam(0.05), "epochs": 3, "batch_size": BATCH, "shards": workers, **more}
    return harness.on_threads(model, x, Y, strategy=strategy, workers=workers, **settings)


def left_out(result: harness.Result) -> list[str]:
    return [text for _, text in result.history.marks]


@pytest.mark.parametrize("how", ["loss", "gradient"])
@pytest.mark.parametrize(("strategy", "workers"), STRATEGIES, ids=repr)
def test_they_are_as_rows_without_weight(strategy: Any, workers: int, how: str) -> None:
    result = trained(how, strategy, workers, skips_nonfinite=True)
    told = left_out(result)
    assert len(told) >= 3, "in each epoch the rows came"
    why = "the loss is inf" if how == "loss" else "the gradient is not finite"
    assert re.fullmatch(rf"rank \d: {why} over shards? \d.*: left out, 1 so far", told[0])
    assert_array_equal(result.params, trained("weightless", strategy, workers).params)
    assert np.abs(result.params).max() > 0.1


@pytest.mark.parametrize(("strategy", "workers"), ASYNCHRONOUS, ids=repr)
def test_ranks_with_a_pace_of_their_own_go_on(strategy: Any, workers: int) -> None:
    x = X.copy()
    x[::9, 0] = 1000.0  # whoever is the faster one has some
    result = trained("loss", strategy, workers, x, skips_nonfinite=True)
    assert len(left_out(result)) >= 3
    assert np.isfinite(result.params).all()
    assert np.abs(result.params).max() > 0.1


def test_where_parts_are_sent_before_the_loss_is_known_no_rank_takes_the_step() -> None:
    result = trained("gradient", AllReduce(overlap=True), 2, skips_nonfinite=True)
    assert len(left_out(result)) >= 3
    assert np.isfinite(result.params).all()
    for outcome in result.outcomes:
        assert_array_equal(outcome.params, result.params)


def test_parts_of_a_batch_are_left_out_one_by_one() -> None:
    skipped = trained("loss", Serial(), 1, skips_nonfinite=True, part_rows=4)
    assert_array_equal(skipped.params, trained("weightless", Serial(), 1, part_rows=4).params)


@pytest.mark.parametrize(("how", "why"), [("loss", "the loss is inf"), ("gradient", "the gradient is not finite")])
def test_else_they_end_the_run(how: str, why: str) -> None:
    with pytest.raises(NonFinite, match=why):
        trained(how, AllReduce(), 2)


def test_what_never_is_finite_ends_the_run_all_the_same() -> None:
    x, settings = np.full((64, 2), 1e3), {"strategy": Serial(), "workers": 1, "epochs": 200, "batch_size": 16}
    with pytest.raises(NonFinite, match="the loss is inf"):
        harness.on_threads(Poisoned(), x, np.arange(64) % 2, skips_nonfinite=True, **settings)
