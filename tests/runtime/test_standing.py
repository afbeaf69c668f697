"""Ranks that keep their own pace lose a worker, with a rank that trains and a server: others go on as they are, the lost from copies."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from runtime import harness
from runtime.test_train_state import take_turns
from scaleml.cluster.losses import losses
from scaleml.cluster.placement import Placement
from scaleml.cluster.recovery import WayOn, recovered_ranks, way_as_they_are
from scaleml.cluster.shrinking import as_they_are_of_those, told_to
from scaleml.comm import CommError
from scaleml.compression import TopK
from scaleml.faults import Crash, Fault, InjectedCrash
from scaleml.models import MLP
from scaleml.optim import SGD, LinearDecay
from scaleml.optim.place import place_of
from scaleml.runtime import recovery_points
from scaleml.runtime.outcome import Outcome
from scaleml.runtime.parameter_server.server_loop import ServerLoop
from scaleml.runtime.plan import Plan
from scaleml.runtime.stop_rule import StopRule
from scaleml.runtime.training_loop import TrainingLoop
from scaleml.strategies import Gossip, Hogwild, ParameterServer

RANKS, LOST, EPOCHS, BATCH, STEP = 3, 2, 5, 24, 7
RANDOM = np.random.default_rng(0)
X = RANDOM.standard_normal((240, 6))
Y = (X[:, 0] + 0.5 * X[:, 1] > 0).astype(int)
THREADS = {"simulated": False}
"""In simulated time ranks take turns, and servers hear of all by message; threads share memory."""
CASES = [
    (ParameterServer(), THREADS),
    (ParameterServer(servers=2), THREADS),
    (ParameterServer(servers=2), {}),
    (ParameterServer(overlap=True, servers=2), {}),
    (ParameterServer(compression=TopK(0.5)), {}),
    (ParameterServer(), {"optimizer": SGD(0.3, momentum=0.5, schedule=LinearDecay())}),
    (ParameterServer("ssp", staleness=2, servers=2), {}),
    (Hogwild(), {}),
    (Gossip(asynchronous=True), {}),
    (Gossip("random", asynchronous=True), {}),
]
Loop = TrainingLoop | ServerLoop


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have copies of servers taken after each step."""
    monkeypatch.setattr(recovery_points, "SECONDS", 0.0)
    monkeypatch.setattr(recovery_points, "SHARE", 1e9)


def trained(strategy: Any, loops: dict[int, Loop], **more: Any) -> harness.Result:
    usual: dict[str, Any] = {
        "optimizer": SGD(0.2, momentum=0.5),
        "workers": RANKS,
        "shards": RANKS,
        "epochs": EPOCHS,
        "batch_size": BATCH,
        "replaces_lost": True,
        "simulated": True,
    }

    def keep(loop: Loop) -> None:
        world = loop.world if isinstance(loop, ServerLoop) else loop.rank.world
        loops[world.rank] = loop
        if isinstance(loop, TrainingLoop):
            take_turns(loop)

    return harness.on_threads(
        MLP((4,), dtype="float64"), X, Y, strategy=strategy, validation=(X, Y), prepare=keep, **{**usual, **more}
    )


def left_by(loops: dict[int, Loop], *faults: Fault) -> dict[int, Outcome]:
    """Return what each rank has kept that has not failed by itself; what is to befall them later."""
    found = {}
    for rank, loop in loops.items():
        state, standing = loop.left_standing()
        state = dataclasses.replace(state, faults=tuple(fault for fault in faults if fault.rank == rank))
        found[rank] = Outcome("suspended", loop.steps, state=state, standing=standing)
    return found


def recovered(strategy: Any, left: dict[int, Outcome], **more: Any) -> tuple[harness.Result, WayOn, dict[int, Loop]]:
    """Have others go on, without what was on the worker of rank `LOST`."""
    layout = strategy.layout(RANKS)
    at = [*range(RANKS), *(layout.beside(server) for server in range(RANKS, layout.size))]
    placement = Placement(layout, tuple(map(str, at)), 1)
    stands = {rank: one.standing.facts for rank, one in left.items() if at[rank] != LOST and one.standing}
    assert len(stands) < layout.size
    way = way_as_they_are(stands, layout)
    told = recovered_ranks(way, placement, {str(LOST)}, STEP, 1.5, {LOST: STEP})
    assert [rank for rank, one in told.items() if one.is_replacement] == [
        r for r in range(layout.size) if at[r] == LOST
    ]
    before = [(told[rank], None if source is None else left[source]) for rank, source in enumerate(way.sources)]
    loops: dict[int, Loop] = {}
    return trained(strategy, loops, recovered=before, **more), way, loops


@pytest.mark.parametrize(("strategy", "how"), CASES, ids=str)
def test_others_go_on_as_they_are(strategy: Any, how: dict[str, Any]) -> None:
    loops: dict[int, Loop] = {}
    with pytest.raises((InjectedCrash, CommError)):
        trained(strategy, loops, faults=[Crash(LOST, STEP)], **how)
    left = left_by(loops)
    assert loops[LOST].steps == STEP, "the fault did not happen"
    after, way, loops = recovered(strategy, left, **how)
    assert not way.is_exact
    assert None not in way.sources, "a server's copy is with a rank on another worker"
    own = BATCH // RANKS
    # What the lost rank had taken is known to within what was on its way: to neighbours, a little more.
    in_flight = 3 if isinstance(strategy, Gossip) else 2
    least = (
        0 if way.versions == {RANKS: way.versions.get(RANKS, -1)} and how != THREADS else STEP * own - in_flight * own
    )
    assert least <= way.taken[LOST] <= STEP * own + in_flight * own
    for rank in range(RANKS):
        if rank != LOST:
            assert 0 <= way.taken[rank] - left[rank].state.samples <= in_flight * own  # type: ignore[union-attr]
    # Each epoch's rows are seen about once: the run ends after as many as ever.
    samples = [int(loops[rank].rank.recorder.samples) for rank in range(RANKS)]  # type: ignore[union-attr]
    assert abs(sum(samples) - len(X) * EPOCHS) <= 6 * BATCH
    assert all(sample >= taken for sample, taken in zip(samples, way.taken, strict=True))
    assert after.history.evaluations["loss"][-1] < 0.3
    if strategy.layout(RANKS).servers:
        stale = after.history["staleness"]
        assert stale.min() >= 0
        if strategy.ahead < np.inf:
            first = [after.history["step"][after.history["rank"] == rank][0] for rank in range(RANKS)]
            assert np.ptp(first) <= 1, (
                "ranks that may not be far from each other begin at one step, which stamps of commands rest on"
            )
            assert stale.max() <= 2 * RANKS * (strategy.ahead + 1), "a first push is not stale by what was before"
        assert after.outcomes[0].widest is not None
        steps = after.history["step"][after.history["rank"] >= RANKS]
        assert steps.min() >= max(1, STEP - 1), "a server counts on"


def go_on_without(strategy: Any, lost: int, ranks: int, left: dict[int, Outcome], **more: Any) -> tuple[Any, ...]:
    """Have the others go on without rank `lost` of so many, and without a server that stood beside it."""
    layout = strategy.layout(ranks)
    at = [*range(ranks), *(layout.beside(server) for server in range(ranks, layout.size))]
    stands = {rank: one.standing.facts for rank, one in left.items() if at[rank] != lost and one.standing}
    stay = [rank for rank in range(ranks) if rank != lost]
    all_ways = way_as_they_are(stands, layout)
    way, change = as_they_are_of_those(all_ways, stay, layout)
    told = told_to(way, change, stay, layout, STEP, 1.5, [], {})
    before = [(told[rank], None if source is None else left[source]) for rank, source in enumerate(way.sources)]
    loops: dict[int, Loop] = {}
    return (lambda: trained(strategy, loops, workers=len(stay), recovered=before, change=change, **more)), way, loops


@pytest.mark.parametrize(("strategy", "how"), CASES, ids=str)
def test_the_survivors_go_on_as_fewer(strategy: Any, how: dict[str, Any]) -> None:
    loops: dict[int, Loop] = {}
    with pytest.raises((InjectedCrash, CommError)):
        trained(strategy, loops, faults=[Crash(0, STEP)], **how)
    # Then the one beside which servers stand: its number is another one by then.
    go_on, way, loops = go_on_without(strategy, 0, RANKS, left_by(loops, Crash(LOST, 2 * STEP)), **how)
    with pytest.raises((InjectedCrash, CommError)):
        go_on()
    assert way.sources[:2] == (1, 2)
    assert loops[1].steps == 2 * STEP, "the fault did not follow its rank"
    own = int(loops[0].rank.recorder.samples)  # type: ignore[union-attr]
    go_on, last, loops = go_on_without(strategy, 1, 2, left_by(loops), **how)
    after = go_on()
    # No row is lost or comes twice but for those in flight, and those of a server whose copy was older.
    assert sum(way.taken) < sum(last.taken) < len(X) * EPOCHS
    (rank,) = [loop.rank for loop in loops.values() if isinstance(loop, TrainingLoop)]
    counted = int(rank.recorder.samples), *rank.state.counted[1:]
    assert 0 <= sum(counted) - len(X) * EPOCHS <= 2 * BATCH
    assert rank.recorder.samples - own >= len(X) * EPOCHS - sum(last.taken), "it takes all that is left"
    assert np.isfinite(after.params).all()
    evaluations = after.history.evaluations
    assert evaluations["loss"][-1] < 0.3
    assert evaluations["samples"][-1] == sum(counted)
    if strategy.layout(RANKS).servers:
        assert after.history["staleness"].min() >= 0
        assert after.outcomes[0].widest is not None
        assert after.outcomes[0].widest <= strategy.ahead + 1
        if "optimizer" in how:
            server = loops[1].state
            place = place_of(server.arrays["schedule"], server.updates + 1)
            assert place.update == BATCH / len(X), "a batch is one update now"
            assert place.done == pytest.approx(EPOCHS, rel=0.05), "the schedule ends with the run"


def test_a_server_without_a_copy_begins_from_the_seed_and_says_so() -> None:
    way = WayOn(80, 0, (0, 0, None, 3), 0, (40.0, 40.0), (0, 0))
    layout = ParameterServer(servers=2).layout(2)
    assert layout.size == 4
    plan = Plan.__new__(Plan)
    for name, value in {"layout": layout, "strategy": ParameterServer(servers=2), "batch_size": 16}.items():
        object.__setattr__(plan, name, value)
    said = losses(way, [1, 2], plan, {1: (5, 40), 2: (11, 0)})
    assert said == [
        "at most 1 update (about 8 rows) of rank 1 lost",
        "the parameters of rank 2, a server, begin again from the seed",
    ]


def test_early_stopping_is_agreed_on() -> None:
    rule = StopRule(tol=None, n_iter_no_change=3)
    for strategy in (ParameterServer(), Hogwild()):
        loops: dict[int, Loop] = {}
        with pytest.raises((InjectedCrash, CommError)):
            trained(strategy, loops, faults=[Crash(LOST, 25)], stop=rule)
        before = len(loops[0].rank.state.stopping.losses)  # type: ignore[union-attr]
        after, _, _ = recovered(strategy, left_by(loops), stop=rule)
        assert before > 0
        assert len(after.outcomes[0].losses) == EPOCHS
