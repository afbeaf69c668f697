"""Runs on workers: the model at the best held-out loss stands beside the last one, however the run ended."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import scaleml
from scaleml import MLP, SGD, AllReduce, LinearModel, LocalSGD, ParameterServer, RunFailed
from scaleml.faults import Crash

RANDOM = np.random.default_rng(0)
X, HELD_X = RANDOM.standard_normal((2, 90, 8))
Y, HELD_Y = ((x[:, 0] + 2 * RANDOM.standard_normal(90) > 0).astype(int) for x in (X, HELD_X))

pytestmark = pytest.mark.usefixtures("embedded")


def overfitted(**more: Any) -> dict[str, Any]:
    """Return the arguments of a run whose held-out loss rises: its labels are mostly chance."""
    usual = {"validation": (HELD_X, HELD_Y), "optimizer": SGD(0.5), "epochs": 12, "batch_size": 30, "workers": 2}
    return {"model": MLP((16,), dtype="float64"), "X": X, "y": Y, **usual, **more}


def check(run: scaleml.Run) -> None:
    losses = run.history.evaluations["loss"]
    assert run.best_evaluation == np.argmin(losses) < len(losses) - 1
    np.testing.assert_allclose(run.model.loss(HELD_X, HELD_Y), losses.min(), rtol=1e-12)
    assert run.last_model.loss(HELD_X, HELD_Y) > losses.min()


@pytest.mark.parametrize("strategy", [AllReduce(), ParameterServer("async", servers=2), LocalSGD(4)], ids=repr)
def test_it_is_the_model_at_the_lowest_held_out_loss(strategy: Any) -> None:
    check(scaleml.train(**overfitted(strategy=strategy)))


@pytest.mark.parametrize("strategy", [AllReduce(), ParameterServer("async")], ids=repr)
def test_a_run_that_is_stopped_has_it_too(strategy: Any, poll: Callable[..., Any]) -> None:
    run = scaleml.start(**overfitted(strategy=strategy, epochs=10**6))
    assert poll(lambda: len(run.history.evaluations["loss"]) > 8)
    with pytest.raises(RuntimeError, match="has no parameters"):
        _ = run.model
    assert run.best_evaluation is None
    run.stop()
    assert run.state == "stopped"
    check(run)


def test_ranks_that_take_over_know_what_was_best_before_them(poll: Callable[..., Any]) -> None:
    run = scaleml.start(**overfitted(epochs=10**6))
    assert poll(lambda: len(run.history.evaluations["loss"]) > 20)
    run.update(strategy=ParameterServer("bsp"))
    after = len(run.history.evaluations["loss"])
    assert poll(lambda: len(run.history.evaluations["loss"]) > after + 3)
    run.stop()
    check(run)
    assert run.best_evaluation is not None
    assert run.best_evaluation < after


def test_a_run_that_failed_leaves_it() -> None:
    run = scaleml.start(**overfitted(faults=[Crash(1, step=30)]))
    with pytest.raises(RunFailed):
        run.wait()
    np.testing.assert_allclose(run.model.loss(HELD_X, HELD_Y), run.history.evaluations["loss"].min(), rtol=1e-12)


def test_without_held_out_data_it_is_the_model_itself() -> None:
    run = scaleml.train(LinearModel(), X, Y, epochs=2, workers=2)
    assert run.best_evaluation is None
    np.testing.assert_array_equal(run.model.params, run.last_model.params)
