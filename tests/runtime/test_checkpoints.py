"""Checkpoints of ranks on threads: whoever goes on from one ends with the bits of a run that nobody disturbed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from family.strategies import STRATEGIES
from runtime import harness
from scaleml.checkpoint.catalog import checkpoints_in, newest
from scaleml.checkpoint.folder import open_folder
from scaleml.compression import PowerSGD, TopK
from scaleml.models import MLP
from scaleml.optim import SGD, Adam
from scaleml.runtime.plan import Plan
from scaleml.runtime.restart import begin_from
from scaleml.runtime.saving import Origin, Saving
from scaleml.strategies import AllReduce, LocalSGD, ParameterServer

RANDOM = np.random.default_rng(0)
X = RANDOM.standard_normal((150, 6))
Y = (X[:, 0] + X[:, 1] ** 2 > 0.5).astype(int)
TOGETHER = [
    *[one for one in STRATEGIES if one.synchronous and not one.layout(3).servers],
    AllReduce(compression=TopK(0.25)),
    AllReduce(compression=PowerSGD(1)),
    LocalSGD(3, outer=SGD(0.7, momentum=0.9, nesterov=True)),
    LocalSGD(3, compression=TopK(0.5)),
]


def trained(strategy: Any, **more: Any) -> harness.Result:
    usual: dict[str, Any] = {"optimizer": Adam(0.01), "workers": 3, "epochs": 3, "batch_size": 24, "validation": (X, Y)}
    return harness.on_threads(MLP((4,), dtype="float64"), X, Y, strategy=strategy, keep_end=True, **{**usual, **more})


def saving(path: Path, **more: Any) -> Saving:
    return Saving(str(path), "a run", "0", {}, **{"epochs": 0.4, "keep": 100, **more})


def origin(path: Path, place: int = -1) -> Origin:
    """Return one of the checkpoints, by its place in their order."""
    folder = open_folder(str(path))
    found = newest(f"{path}/{checkpoints_in(folder)[place]}").manifest
    prints = {shard: digest for note in found.about["ranks"] for shard, digest in note["fingerprints"].items()}
    seen = tuple(map(tuple, found.about["evaluations"]))
    ranks = len(found.about["ranks"])
    return Origin(str(path), found.name, found.about["step"], ranks, found.about["clock"], prints, seen)


def begun(strategy: Any, origin: Origin, rank: int, ranks: int = 3) -> Any:
    """Return the state with which a rank begins from a checkpoint."""
    layout = strategy.layout(ranks)
    plan = Plan(
        *(None, strategy, Adam(0.01), layout, (50, 50, 50)),  # type: ignore[arg-type]  # the model is not looked at
        epochs=4,
        batch_size=24,
        seed=0,
        dtype="float64",
        evaluate_every=0,
        origin=origin,
    )
    return begin_from(plan, rank).start


@pytest.mark.parametrize("strategy", TOGETHER, ids=repr)
def test_the_bits_are_those_of_an_undisturbed_run(strategy: Any, tmp_path: Path) -> None:
    undisturbed = trained(strategy)
    written = trained(strategy, saving=saving(tmp_path))
    assert_array_equal(written.params, undisturbed.params)
    there = checkpoints_in(open_folder(str(tmp_path)))
    assert len(there) > 1
    middle = origin(tmp_path, len(there) // 2 - 1)
    assert 0 < middle.step < undisturbed.outcomes[0].step
    after = trained(strategy, origin=middle)
    assert_array_equal(after.params, undisturbed.params)
    assert_array_equal(after.history.evaluations["loss"], undisturbed.history.evaluations["loss"])


APART = [one for one in STRATEGIES if not one.synchronous]


@pytest.mark.parametrize("strategy", [*APART, ParameterServer("async", compression=TopK(0.5))], ids=repr)
@pytest.mark.parametrize("validation", [(X, Y), None], ids=["watched", "unwatched"])
def test_ranks_with_a_pace_of_their_own_go_on_from_what_they_had_in_common(
    strategy: Any, validation: Any, tmp_path: Path
) -> None:
    more = {"validation": validation, "evaluate_every": len(X), "simulated": True}
    written = trained(strategy, saving=saving(tmp_path), epochs=4, **more)
    middle, last = origin(tmp_path, 0), origin(tmp_path)
    assert middle.step > 0
    states = [begun(strategy, middle, rank) for rank in range(3)]
    consumed = states[0].consumed
    assert {(state.consumed, state.step) for state in states} == {(consumed, middle.step)}
    assert len(X) <= consumed < 4 * len(X)
    assert abs(sum(state.samples for state in states) - consumed) == 0
    after = trained(strategy, origin=middle, epochs=4, **more)
    total, first = (sum(outcome.state.samples for outcome in each.outcomes[:3]) for each in (after, written))
    assert total >= 4 * len(X)
    assert total <= first + 6 * 24, "ranks count from where they began"
    if strategy.layout(3).servers:
        assert_array_equal(begun(strategy, last, 0).params, written.params)
    assert after.history.evaluations["loss"].size == 0 or after.history.evaluations["loss"][-1] < 0.75
