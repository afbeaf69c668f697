"""Recovery points: ranks that lose one of them go on from what they kept, its replacement from its buddy's copy, with the same bits."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy.sparse import csr_matrix

from family.strategies import STRATEGIES
from runtime import harness
from scaleml.cluster.placement import Placement
from scaleml.cluster.recovery import recovered_ranks, way_on
from scaleml.comm import CommError
from scaleml.compression import PowerSGD, TopK
from scaleml.faults import Crash, DropLink, InjectedCrash, Kill, left_after_loss
from scaleml.models import MLP, LinearModel
from scaleml.optim import SGD, Adam
from scaleml.runtime import recovery_points
from scaleml.runtime.outcome import Outcome
from scaleml.runtime.parameter_server.server_loop import ServerLoop
from scaleml.runtime.recovery_points import RecoveryPoint
from scaleml.runtime.stop_rule import StopRule
from scaleml.runtime.train_state import TrainState
from scaleml.runtime.training_loop import TrainingLoop
from scaleml.strategies import AllReduce, LocalSGD, ParameterServer

RANKS, LOST, EPOCHS, BATCH = 3, 1, 3, 24
RANDOM = np.random.default_rng(0)
X = RANDOM.standard_normal((150, 6))
Y = (X[:, 0] + X[:, 1] ** 2 > 0.5).astype(int)
TOGETHER = [
    *[one for one in STRATEGIES if one.synchronous and not one.layout(RANKS).servers and one.layout(RANKS).workers > 1],
    AllReduce(compression=TopK(0.25)),
    AllReduce(compression=PowerSGD(1)),
    AllReduce(overlap=True),
    LocalSGD(3, outer=SGD(0.7, momentum=0.9, nesterov=True)),
    LocalSGD(3, compression=TopK(0.5)),
    LocalSGD(None),
    ParameterServer("bsp", servers=2),
    ParameterServer("bsp", servers=2, compression=TopK(0.25)),
]


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a point taken in each boundary."""
    monkeypatch.setattr(recovery_points, "SECONDS", 0.0)
    monkeypatch.setattr(recovery_points, "SHARE", 1e9)


def trained(strategy: Any, **more: Any) -> harness.Result:
    usual: dict[str, Any] = {
        "optimizer": Adam(0.01),
        "workers": RANKS,
        "epochs": EPOCHS,
        "batch_size": BATCH,
        "replaces_lost": True,
    }
    return harness.on_threads(
        MLP((4,), dtype="float64"), X, Y, strategy=strategy, validation=(X, Y), **{**usual, **more}
    )


def broken(strategy: Any, step: int, **more: Any) -> list[Outcome]:
    """Train until a rank fails at step `step`, and return what each rank has kept."""
    loops: dict[int, TrainingLoop | ServerLoop] = {}

    def keep(loop: TrainingLoop | ServerLoop) -> None:
        world = loop.world if isinstance(loop, ServerLoop) else loop.rank.world
        loops[world.rank] = loop

    with pytest.raises((InjectedCrash, CommError)):
        trained(strategy, faults=[Crash(LOST, step)], prepare=keep, **more)
    assert sorted(loops) == list(range(strategy.layout(RANKS).size))
    points = {
        rank: loop.points if isinstance(loop, ServerLoop) else loop.points.kept for rank, loop in sorted(loops.items())
    }
    for kept in points.values():
        assert len({point.step for point in kept}) == len(kept), "one point has pushed out another of the same step"
    return [Outcome("suspended", loops[rank].steps, points=kept) for rank, kept in points.items()]


def gone_on(strategy: Any, left: list[Outcome], **more: Any) -> harness.Result:
    """Have all ranks go on from the newest step that the living and the lost one's buddy have; the lost one's own is not used."""
    layout = strategy.layout(RANKS)
    at = [*range(RANKS), *(layout.beside(server) for server in range(RANKS, layout.size))]
    points = {
        rank: {point.step: 0 for point in outcome.points} for rank, outcome in enumerate(left) if at[rank] != LOST
    }
    way = way_on(points, layout)
    assert way.step >= 0 or left[0].step <= 1 or isinstance(strategy, LocalSGD), "there is no point yet"
    told = recovered_ranks(way, Placement(layout, tuple(map(str, at)), 1), {str(LOST)}, left[0].step, 1.5, {})
    assert [rank for rank, one in told.items() if one.is_replacement] == [
        r for r in range(layout.size) if at[r] == LOST
    ]
    before = []
    for rank, number in enumerate(way.sources):
        source = None
        if number is not None:
            source = left[number]
            source = dataclasses.replace(source, points=tuple(without_crash(point) for point in source.points))
        before.append((told[rank], source))
    return trained(strategy, recovered=before, **more)


def without_crash(point: RecoveryPoint) -> RecoveryPoint:
    neighbour = point.neighbour and dataclasses.replace(TrainState.from_bytes(point.neighbour), faults=()).to_bytes()
    return dataclasses.replace(point, state=dataclasses.replace(point.state, faults=()), neighbour=neighbour)


@pytest.mark.parametrize("strategy", TOGETHER, ids=repr)
@pytest.mark.parametrize("step", [1, 8])
def test_the_bits_are_those_of_an_undisturbed_run(strategy: Any, step: int) -> None:
    undisturbed = trained(strategy, replaces_lost=False)
    left = broken(strategy, step)
    after = gone_on(strategy, left)
    assert_array_equal(after.params, undisturbed.params)
    assert len({outcome.step for outcome in after.outcomes}) == 1
    for mine, theirs in zip(after.outcomes, undisturbed.outcomes, strict=True):
        assert mine.step == theirs.step
        assert mine.best.evaluation == theirs.best.evaluation


def test_points_do_not_change_a_run() -> None:
    for strategy in (AllReduce(), LocalSGD(3)):
        assert_array_equal(trained(strategy).params, trained(strategy, replaces_lost=False).params)


def test_early_stopping_goes_on_as_it_was() -> None:
    rule = StopRule(tol=1e-3, n_iter_no_change=2)
    undisturbed = trained(AllReduce(), stop=rule, epochs=30, replaces_lost=False)
    after = gone_on(AllReduce(), broken(AllReduce(), 15, stop=rule, epochs=30), stop=rule, epochs=30)
    assert_array_equal(after.params, undisturbed.params)
    assert after.outcomes[0].losses == undisturbed.outcomes[0].losses
    assert after.outcomes[0].scores == undisturbed.outcomes[0].scores


def test_columns_of_csr_data_go_on_through_their_servers() -> None:
    rows = csr_matrix(RANDOM.random((150, 30)) * (RANDOM.random((150, 30)) < 0.1))
    labels = np.ravel(rows.sum(axis=1) > 1.4).astype(int)
    strategy = ParameterServer("bsp", servers=2)

    def sparse(**more: Any) -> harness.Result:
        usual: dict[str, Any] = {
            "optimizer": SGD(0.5),
            "workers": RANKS,
            "epochs": 2,
            "batch_size": BATCH,
            "replaces_lost": True,
        }
        usual["validation"] = rows, labels
        model = LinearModel(alpha=0.01, dtype="float64")
        return harness.on_threads(model, rows, labels, strategy=strategy, **{**usual, **more})

    undisturbed = sparse()
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(globals(), "trained", lambda _, **more: sparse(**more))
        after = gone_on(strategy, broken(strategy, 8))
    assert_array_equal(after.params, undisturbed.params)
    assert_array_equal(after.history.evaluations["loss"][-1], undisturbed.history.evaluations["loss"][-1])


def test_two_points_are_kept_and_the_neighbours_part_is_small() -> None:
    left = broken(AllReduce(), 8)
    for outcome in left:
        assert len(outcome.points) == 2
        assert outcome.points[0].step < outcome.points[1].step <= 8
        assert len(outcome.points[1].neighbour) < 3000, "parameters and slots are with everybody"
    with_residuals = broken(AllReduce(compression=TopK(0.25)), 8)
    assert len(with_residuals[0].points[1].neighbour) > len(left[0].points[1].neighbour)


def test_a_kill_and_a_cut_link_come_once() -> None:
    first, second, other, cut = Kill(1, 4), Kill(1, 9), Kill(0, 2), DropLink(2, to=0, step=6)
    assert left_after_loss([second, cut, other, first], [1], 5) == (second, cut, other)
    assert left_after_loss([second, cut, other], [], 6) == (second, other)
