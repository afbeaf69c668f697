"""Checkpoints of ranks on threads: whoever goes on from one ends with the bits of a run that nobody disturbed."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from family.strategies import STRATEGIES
from runtime import harness
from scaleml.checkpoint.catalog import checkpoints_in, newest
from scaleml.checkpoint.folder import LocalFolder, open_folder
from scaleml.comm import CommError
from scaleml.compression import PowerSGD, TopK
from scaleml.faults import Crash, InjectedCrash
from scaleml.models import MLP
from scaleml.optim import SGD, Adam
from scaleml.runtime.commands import Command
from scaleml.runtime.plan import Plan
from scaleml.runtime.restart import begin_from
from scaleml.runtime.saving import Origin, Saving
from scaleml.runtime.stop_rule import StopRule
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


@pytest.mark.parametrize(
    ("strategy", "validation"),
    [
        *((strategy, (X, Y)) for strategy in [*APART, ParameterServer("async", compression=TopK(0.5))]),
        *((strategy, None) for strategy in [APART[0], ParameterServer(servers=2)]),
    ],
    ids=lambda value: "unwatched" if value is None else "watched" if isinstance(value, tuple) else repr(value),
)
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
    if strategy == ParameterServer("bsp"):
        assert_array_equal(after.params, written.params)
    if strategy.layout(3).servers:
        assert_array_equal(begun(strategy, last, 0).params, written.params)
    assert after.history.evaluations["loss"].size == 0 or after.history.evaluations["loss"][-1] < 0.75


def test_early_stopping_goes_on_as_it_was(tmp_path: Path) -> None:
    more = {"stop": StopRule(tol=0.02, n_iter_no_change=2), "epochs": 30}
    undisturbed = trained(AllReduce(), **more)
    trained(AllReduce(), saving=saving(tmp_path, epochs=1), **more)
    after = trained(AllReduce(), origin=origin(tmp_path, 0), **more)
    assert_array_equal(after.params, undisturbed.params)
    assert after.outcomes[0].losses == undisturbed.outcomes[0].losses
    assert after.outcomes[0].scores == undisturbed.outcomes[0].scores
    assert 2 < len(after.outcomes[0].losses) < 30


@pytest.mark.parametrize("strategy", [AllReduce(), LocalSGD(4)], ids=repr)
def test_a_stopped_run_goes_on_as_if_nobody_had_stopped_it(strategy: Any, tmp_path: Path) -> None:
    stop = Command(number=1, verb="stop", settings={})
    stopped = trained(strategy, saving=saving(tmp_path, epochs=0.0, seconds=3600.0), commands=[(5, stop)])
    assert stopped.state == "stopped"
    assert len(checkpoints_in(open_folder(str(tmp_path)))) == 1
    assert not newest(str(tmp_path)).manifest.about["over"]
    after = trained(strategy, origin=origin(tmp_path))
    assert origin(tmp_path).step < after.outcomes[0].step
    assert_array_equal(after.params, trained(strategy).params)


def test_a_run_that_is_over_trains_on(tmp_path: Path) -> None:
    trained(AllReduce(), saving=saving(tmp_path), epochs=2)
    assert newest(str(tmp_path)).manifest.about["over"]
    after = trained(AllReduce(), origin=origin(tmp_path), epochs=3)
    assert_array_equal(after.params, trained(AllReduce()).params)


@pytest.mark.parametrize("ranks", [1, 2, 6])
def test_more_or_fewer_ranks_come_to_the_same_to_rounding(ranks: int, tmp_path: Path) -> None:
    undisturbed = trained(AllReduce(), saving=saving(tmp_path), shards=6)
    after = trained(AllReduce(), origin=origin(tmp_path, 0), shards=6, workers=ranks)
    assert_allclose(after.params, undisturbed.params, rtol=1e-9, atol=1e-12)
    assert sum(outcome.state.samples for outcome in after.outcomes) == 3 * len(X)


@pytest.mark.parametrize(
    "strategy", [LocalSGD(None), LocalSGD(3, outer=SGD(0.7, momentum=0.9, nesterov=True))], ids=repr
)
def test_what_ranks_have_for_themselves_is_averaged_for_others(strategy: Any, tmp_path: Path) -> None:
    trained(strategy, saving=saving(tmp_path, epochs=1))
    middle = origin(tmp_path, 0)
    three = [begun(strategy, middle, rank) for rank in range(3)]
    own = strategy.period is None
    assert np.array_equal(three[0].params, three[1].params) is not own
    for mine in (begun(strategy, middle, rank, 2) for rank in range(2)):
        assert_allclose(mine.params, np.mean([each.params for each in three], axis=0), rtol=1e-15)
        moments = [each.arrays["first_moment"] for each in three]
        assert not np.array_equal(moments[0], moments[1])
        assert_allclose(mine.arrays["first_moment"], np.mean(moments, axis=0), rtol=1e-12)
        assert own or np.array_equal(mine.arrays["outer.anchor"], three[1].arrays["outer.anchor"])
    assert trained(strategy, origin=middle, workers=2, shards=3).outcomes[0].status == "finished"


def test_other_rows_are_refused(tmp_path: Path) -> None:
    trained(AllReduce(), saving=saving(tmp_path))
    other = X.copy()
    other[::7] += 1.0
    with pytest.raises(ValueError, match=r"rows of shard.* are not those that the checkpoint's run was trained on"):
        harness.on_threads(
            MLP((4,), dtype="float64"),
            other,
            Y,
            strategy=AllReduce(),
            optimizer=Adam(0.01),
            workers=3,
            origin=origin(tmp_path),
        )


def test_by_time_ranks_agree_when_one_is_due(tmp_path: Path) -> None:
    written = trained(AllReduce(), saving=saving(tmp_path, epochs=0.0, seconds=1e-9))
    there = checkpoints_in(open_folder(str(tmp_path)))
    assert len(there) > 1
    assert origin(tmp_path, 0).step == 1
    assert_array_equal(trained(AllReduce(), origin=origin(tmp_path, 0)).params, written.params)


@pytest.mark.parametrize("rank", [0, 2])
def test_a_full_disk_ends_no_run_and_leaves_no_half_checkpoint(
    rank: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = LocalFolder.write

    def full(self: LocalFolder, name: str, data: bytes) -> None:
        if name.endswith(f"rank-{rank}.safetensors"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(self, name, data)

    monkeypatch.setattr(LocalFolder, "write", full)
    done = trained(AllReduce(), saving=saving(tmp_path))
    assert_array_equal(done.params, trained(AllReduce()).params)
    assert checkpoints_in(open_folder(str(tmp_path))) == []
    said = [change for change in done.history.changes if change.kind == "checkpoint"]
    assert f"not written by rank {rank}: No space left on device" in "; ".join(change.text for change in said)
    assert len(said) <= 2, "it is said once"


def test_nothing_runs_on_when_ranks_fail(tmp_path: Path) -> None:
    def hook(rank: int, step: int, queue: object) -> None:
        assert step != 14 or harness.await_condition(lambda: [*tmp_path.glob("*/manifest.json")])

    with pytest.raises((InjectedCrash, CommError)):
        trained(AllReduce(), saving=saving(tmp_path), faults=[Crash(1, 15)], hook=hook)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("scaleml-checkpoint")]
    assert_array_equal(trained(AllReduce(), origin=origin(tmp_path, 0)).params, trained(AllReduce()).params)
