"""Another number of ranks in mid-run, on threads: handed over, or left by a lost one; sums are of the same rows."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from runtime import harness
from scaleml.cluster.shrinking import told_to, way_of_those
from scaleml.comm import CommError
from scaleml.compression import TopK
from scaleml.faults import Crash, InjectedCrash, Kill, Latency, Slow, renumbered
from scaleml.models import MLP
from scaleml.optim import SGD, Adam
from scaleml.runtime import recovery_points
from scaleml.runtime.commands import Command
from scaleml.runtime.outcome import Outcome, Recovered
from scaleml.runtime.parameter_server.server_loop import ServerLoop
from scaleml.runtime.rank_change import RankChange
from scaleml.runtime.training_loop import TrainingLoop
from scaleml.strategies import AllReduce, Gossip, Hogwild, LocalSGD, ParameterServer

RANDOM = np.random.default_rng(0)
X = RANDOM.standard_normal((150, 6))
Y = (X[:, 0] + X[:, 1] ** 2 > 0.5).astype(int)
EPOCHS, BATCH, SHARDS = 4, 24, 3
OUTER = LocalSGD(3, outer=SGD(0.7, momentum=0.9, nesterov=True))
TOGETHER = [AllReduce(), AllReduce(compression=TopK(0.25)), LocalSGD(3), OUTER, Gossip()]
APART = [ParameterServer("bsp"), ParameterServer("async", servers=2), Hogwild(), Gossip(asynchronous=True)]


def trained(strategy: Any, workers: int, **more: Any) -> harness.Result:
    usual: dict[str, Any] = {"optimizer": Adam(0.01), "epochs": EPOCHS, "batch_size": BATCH, "shards": SHARDS}
    model = MLP((4,), dtype="float64")
    return harness.on_threads(model, X, Y, strategy=strategy, workers=workers, validation=(X, Y), **{**usual, **more})


def handed(
    strategy: Any, ways: list[tuple[int, RankChange | None]], at: int = 6, patch: pytest.MonkeyPatch | None = None
) -> list[harness.Result]:
    """Train with so many ranks, one after the other, each for some steps, the last to the end."""
    results: list[harness.Result] = []
    for number, (workers, change) in enumerate(ways):
        told = [(at, Command(number + 1, "switch", {"same_strategy": True}))] if number < len(ways) - 1 else []
        before = results[-1].outcomes if results else ()
        hook = harness.held_until_told(patch, strategy) if told and patch is not None else None
        results.append(trained(strategy, workers, before=before, commands=told, change=change, hook=hook))
        assert results[-1].state == ("switched" if told else "finished")
    return results


UP_AND_DOWN = [(2, None), (3, RankChange(2, (0, 1, None))), (1, RankChange(3, (2,)))]


def test_the_result_is_that_of_any_fixed_number() -> None:
    fixed = trained(AllReduce(), 2)
    changed = handed(AllReduce(), UP_AND_DOWN)
    assert [len(result.outcomes) for result in changed] == [2, 3, 1]
    assert_allclose(changed[-1].params, fixed.params, rtol=1e-12, atol=1e-14)
    assert_allclose(changed[-1].params, trained(AllReduce(), 1).params, rtol=1e-12, atol=1e-14)
    mine, theirs = changed[-1].history.evaluations, fixed.history.evaluations
    assert mine["samples"][-1] == theirs["samples"][-1] == 150 * EPOCHS
    assert_allclose(mine["loss"][-2:], theirs["loss"][-2:], rtol=1e-12)


@pytest.mark.parametrize("strategy", [*TOGETHER[1:], *APART], ids=repr)
def test_every_strategy_goes_on_with_other_ranks(strategy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = handed(strategy, UP_AND_DOWN, patch=monkeypatch if strategy in APART else None)
    found = changed[-1].history.evaluations
    # Nobody counts what servers take in beyond the end.
    assert abs(found["samples"][-1] - 150 * EPOCHS) <= (BATCH if strategy in APART else 0)
    assert found["loss"][-1] < changed[0].history.evaluations["loss"][0]
    if strategy == OUTER:
        arrays = changed[0].outcomes[0].state.arrays
        assert all(np.abs(arrays[name]).max() > 0 for name in arrays if name.startswith("outer.")), "it goes on, too"
        assert "outer.updates" in arrays


def test_counts_of_rank_numbers_that_come_back_go_on() -> None:
    ways = [(3, None), (1, RankChange(3, (1,))), (3, RankChange(1, (0, None, None)))]
    first, second, third = handed(AllReduce(), ways, at=4)
    told = [outcome.state.counted for outcome in (first.outcomes[0], second.outcomes[0])]
    assert sum(told[1]) - sum(told[0]) == told[1][0] - told[0][0], "who is left counts for itself alone"
    newest = {int(row[0]): row[4] for row in third.history.rows}
    assert sum(newest.values()) == 150 * EPOCHS
    assert min(newest[1] - told[1][1], newest[2] - told[1][2]) > 0


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a point taken in each boundary."""
    monkeypatch.setattr(recovery_points, "SECONDS", 0.0)
    monkeypatch.setattr(recovery_points, "SHARE", 1e9)


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("strategy", TOGETHER, ids=repr)
@pytest.mark.parametrize("lost", [0, 1, 2])
def test_the_survivors_of_a_lost_rank_go_on(strategy: Any, lost: int) -> None:
    loops: dict[int, TrainingLoop] = {}
    with pytest.raises((InjectedCrash, CommError)):
        trained(
            *(strategy, 3),
            replaces_lost=True,
            faults=[Crash(lost, 8)],
            prepare=lambda loop: loops.__setitem__(loop.rank.world.rank, loop),
        )
    stay = [rank for rank in range(3) if rank != lost]
    step = max(set.intersection(*({point.step for point in loops[rank].points.kept} for rank in stay)))
    left = [Outcome("suspended", loops[rank].steps, points=loops[rank].points.kept) for rank in range(3)]
    change = RankChange(3, tuple(stay), tuple((rank - 1) % 3 == lost for rank in stay))
    told = [(Recovered(rank, step, 8, 1.0, False), left[rank]) for rank in stay]
    begun: list[np.ndarray] = []
    after = trained(
        *(strategy, 2),
        recovered=told,
        change=change,
        replaces_lost=True,
        prepare=lambda loop: begun.append(loop.rank.state.arrays["first_moment"].copy()),
    )
    fixed = trained(strategy, 3)
    evaluations = after.history.evaluations
    assert evaluations["samples"][-1] == 150 * EPOCHS
    assert_allclose(evaluations["loss"][-1], fixed.history.evaluations["loss"][-1], rtol=0.05)
    if strategy == AllReduce():
        assert_allclose(after.params, fixed.params, rtol=1e-12, atol=1e-14)
    points = [next(point for point in left[rank].points if point.step == step) for rank in range(3)]
    for slot in begun:  # the mean is over all former ranks, also the lost one
        assert_allclose(
            slot, np.mean([point.state.arrays["first_moment"] for point in points], axis=0), rtol=1e-12, atol=1e-18
        )


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize(
    "strategy", [ParameterServer("bsp", servers=2), ParameterServer("bsp", compression=TopK(0.5))], ids=repr
)
def test_with_servers_that_keep_all_in_step_the_survivors_go_on(strategy: Any) -> None:
    """After a hand-over, so that it counts from there on, and in the end from what rank 0 kept of a server that was beside rank 2."""
    switched = trained(
        strategy, 2, commands=[(4, Command(1, "switch", {"same_strategy": True}))], faults=[Crash(1, 12)]
    )
    loops: dict[int, Any] = {}

    def keep(loop: Any) -> None:
        loops[loop.world.rank if isinstance(loop, ServerLoop) else loop.rank.world.rank] = loop

    with pytest.raises((InjectedCrash, CommError)):
        trained(
            *(strategy, 3),
            before=switched.outcomes,
            change=RankChange(2, (0, None, 1)),
            replaces_lost=True,
            prepare=keep,
        )
    assert loops[2].steps == 12, "the fault did not follow its rank"
    kept = {rank: loop.points if isinstance(loop, ServerLoop) else loop.points.kept for rank, loop in loops.items()}
    layout = strategy.layout(3)
    left = {rank: points for rank, points in kept.items() if rank != 2 and (rank < 3 or layout.beside(rank) != 2)}
    way, change = way_of_those({rank: {one.step: 0 for one in points} for rank, points in left.items()}, [0, 1], layout)
    assert way.step in (11, 12)
    assert way.sources == ((0, 1, 0, 4) if strategy.servers == 2 else (0, 1, 0))
    told = told_to(way, change, [0, 1], layout, 12, 1.0, [2, 3], {})
    outcomes = [Outcome("suspended", way.step, points=left[source]) for source in way.sources if source is not None]
    recovered = [(told[rank], outcome) for rank, outcome in enumerate(outcomes)]

    def see(loop: Any) -> None:
        if isinstance(loop, ServerLoop) and strategy.compression is not None:
            assert_array_equal(loop._format._known, [loop.state.params] * 2, "workers are sent all that it has")

    after = trained(strategy, 2, recovered=recovered, change=change, replaces_lost=True, prepare=see)
    fixed = trained(strategy, 3)
    evaluations = after.history.evaluations
    assert evaluations["samples"][-1] == 150 * EPOCHS
    assert_allclose(evaluations["loss"][-1], fixed.history.evaluations["loss"][-1], rtol=0.05)
    if strategy.compression is None:
        assert_allclose(after.params, fixed.params, rtol=1e-12, atol=1e-14)


def test_faults_follow_their_ranks() -> None:
    faults = [Kill(1, 9), Slow(2, 4), Latency(0, 0.1, to=2), Latency(0, 0.1, to=1), dataclasses.replace(Slow(0, 2))]
    assert renumbered(faults, {0: 0, 2: 1}) == (Slow(1, 4), Latency(0, 0.1, to=1), Slow(0, 2))
