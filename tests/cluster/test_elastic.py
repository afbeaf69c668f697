"""Another number of workers in mid-run, on real ones: one is killed, is about to close, is free, or somebody says so."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from distributed import Client, Worker
from numpy.testing import assert_allclose

import scaleml
from embedded import embedded
from runtime import harness
from runtime.aftermath import Watch
from scaleml.api import elastic
from scaleml.cluster.driver import Driver
from scaleml.cluster.launcher import Launcher
from scaleml.compression import TopK
from scaleml.faults import Kill
from scaleml.optim import Adam
from scaleml.strategies import AllReduce, Gossip, Hogwild, ParameterServer, Serial, Strategy

RANDOM = np.random.default_rng(0)
X = RANDOM.standard_normal((600, 6))
Y = (X[:, 0] + X[:, 1] ** 2 > 0.5).astype(int)
SETTINGS: dict[str, Any] = {
    "optimizer": Adam(0.01), "epochs": 40, "batch_size": 24, "validation": 0.2, "seed": 3, "shards": 3
}  # fmt: skip
RUNS: list[scaleml.Run] = []


@pytest.fixture(scope="module")
def cluster() -> Client:
    return embedded(4)


@pytest.fixture
def watch(cluster: Client) -> Iterator[Watch]:
    cluster.wait_for_workers(4, timeout=30)
    started(AllReduce(), workers=4, epochs=4).wait(60)  # what a process keeps from its first run is no leak
    made = Watch(cluster)
    yield made
    for run in RUNS:
        if not run.over:  # of a test that failed: it would disturb others
            run.stop()
    RUNS.clear()
    cluster.wait_for_workers(4, timeout=30)
    made.nothing_left()


def started(strategy: Strategy, **more: Any) -> scaleml.Run:
    model = scaleml.MLP((4,), dtype="float64")
    RUNS.append(scaleml.start(model, X, Y, strategy=strategy, **{**SETTINGS, **more}))
    return RUNS[-1]


def until(condition: Callable[[], bool]) -> None:
    assert harness.await_condition(condition, 30)


def told(run: scaleml.Run) -> str:
    return "; ".join(change.text for change in run.history.changes)


def test_the_survivors_go_on_and_end_where_the_fixed_run_does(watch: Watch) -> None:
    fixed = started(AllReduce(), workers=3).wait(60)
    run = started(AllReduce(), workers=3, on_worker_lost="shrink", faults=[Kill(0, 100), Kill(2, 200)]).wait(60)
    assert run.workers == 1
    assert "rank 0 left out: lost at step 100" in told(run)
    assert "rank 1 left out: lost at step 200" in told(run), "rank 2 had become rank 1"
    assert_allclose(run.params, fixed.params, rtol=1e-12, atol=1e-14)
    assert run.history.evaluations["samples"][-1] == fixed.history.evaluations["samples"][-1]


CHAOS = pytest.mark.chaos


@pytest.mark.parametrize(
    "strategy",
    [
        ParameterServer("ssp", staleness=2),
        pytest.param(ParameterServer("async", servers=2), marks=CHAOS),
        pytest.param(ParameterServer("async", overlap=True), marks=CHAOS),
        pytest.param(ParameterServer("async", compression=TopK(0.5)), marks=CHAOS),
        pytest.param(Hogwild(), marks=CHAOS),
        pytest.param(Gossip(asynchronous=True), marks=CHAOS),
    ],
    ids=repr,
)
def test_survivors_with_a_pace_of_their_own_go_on_as_they_are(watch: Watch, strategy: Strategy) -> None:
    run = started(strategy, workers=3, epochs=30, on_worker_lost="shrink", faults=[Kill(2, 60), Kill(0, 120)]).wait(60)
    assert run.workers == 1
    (text, *more) = [change.text for change in run.history.changes if change.kind == "recovery"]
    assert all("left out: lost at step" in each and "others go on as they are" in each for each in (text, *more))
    told_of = re.findall(r"at most \d updates? \(about \d+ rows\) of rank (\d) lost", told(run))
    assert len(told_of) == 2, "both losses are told of"
    assert len(more) == 1 or set(told_of) == {"0", "2"}, "they may come together"
    evaluations = run.history.evaluations
    rows = evaluations["samples"][-1] - 480 * 30
    assert 0 <= rows <= 480, "about as many as ever: of some in flight nobody knows, and they come again"
    assert np.isfinite(run.params).all()
    assert evaluations["loss"][-1] < evaluations["loss"][0] / 2


@pytest.mark.chaos
def test_servers_that_keep_all_in_step_go_on_with_fewer(watch: Watch) -> None:
    fixed = started(ParameterServer("bsp"), workers=3).wait(60)
    faults = [Kill(2, 100), Kill(0, 200)]
    run = started(ParameterServer("bsp"), workers=3, on_worker_lost="shrink", faults=faults).wait(60)
    assert run.workers == 1
    assert "rank 3 replaced, rank 2 left out: lost at step 100" in told(run), "the server was beside it"
    assert_allclose(run.params, fixed.params, rtol=1e-12, atol=1e-14)
    assert run.history.evaluations["samples"][-1] == fixed.history.evaluations["samples"][-1]


@pytest.mark.parametrize("strategy", [AllReduce(), ParameterServer("async"), Hogwild()], ids=repr)
def test_a_run_goes_on_with_as_many_as_it_is_told(watch: Watch, strategy: Strategy) -> None:
    run = started(strategy, workers=2, epochs=10**6)
    for count in (3, 1, 2):
        until(lambda: len(run.history) > 3)
        run.update(workers=count)
        assert run.workers == count
        assert f"workers={count}" in told(run) or harness.await_condition(lambda n=count: f"workers={n}" in told(run))
    run.stop()
    assert run.state == "stopped"
    assert np.isfinite(run.params).all()
    assert len(run.ledger.ranks) >= 3


def test_what_cannot_be_is_refused_before_anything_changes(watch: Watch, cluster: Client) -> None:
    run = started(AllReduce(), workers=2, epochs=10**6)
    for error, words, more in (
        (ValueError, "the Dask cluster has 4", {"workers": 99}),
        (ValueError, r"pass workers=1, or another strategy", {"strategy": Serial(), "workers": 2}),
        (ValueError, "each rank needs a row of each batch", {"batch_size": 2, "workers": 3}),
        (ValueError, "are not in the cluster", {"workers": ["nobody"]}),
        (TypeError, r"a range such as \(2, 8\)", {"workers": "two"}),
    ):
        with pytest.raises(error, match=words):
            run.update(**more)
    assert (run.workers, run.plan.batch_size, told(run)) == (2, 24, "")
    run.update(strategy=Serial(), workers=1)
    assert (run.workers, run.is_serial) == (1, True)
    run.stop()


@pytest.mark.parametrize(
    "strategy", [AllReduce(), pytest.param(ParameterServer("ssp", staleness=1), marks=CHAOS)], ids=repr
)
def test_a_range_shrinks_at_a_loss_and_takes_who_is_free(
    watch: Watch, cluster: Client, strategy: Strategy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(elastic, "SETTLE", 0.0)
    monkeypatch.setattr(elastic, "PAUSE", 0.0)
    run = started(strategy, workers=(1, 3), epochs=10**6)
    until(lambda: len(run.history) > 3)
    assert run.workers == 3, "as many as there are, up to the most"
    address = run._driver.placement.addresses[1]
    os.kill(cluster.run(os.getpid, workers=[address])[address], signal.SIGKILL)
    until(lambda: "workers=3" in told(run) and run.state == "running")
    assert "rank 1 left out" in told(run)
    assert run.workers == 3
    run.update(workers=2)
    assert run.workers == 2, "from now on"
    assert not run._driver.allowed.grows
    run.stop()


@pytest.mark.parametrize(
    ("strategy", "at_once"),
    [(AllReduce(), True), (AllReduce(), False), pytest.param(Hogwild(), False, marks=pytest.mark.chaos)],
)
def test_who_is_lost_while_others_take_over_is_left_out(
    watch: Watch, cluster: Client, strategy: Strategy, at_once: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = started(strategy, workers=2, epochs=10**6)
    until(lambda: len(run.history) > 3)
    # Before its endpoint is opened, or when the others have heard of it: in neither case has it entered.
    owner, step = (Driver, "_place_ranks") if at_once else (Launcher, "submit")
    go_on, killed, processes = getattr(owner, step), [], cluster.run(os.getpid)

    def strike(who: Driver | Launcher, *arguments: Any) -> None:
        if not killed:
            killed.append(who.placement.addresses[2])
            os.kill(processes[killed[0]], signal.SIGKILL)
        go_on(who, *arguments)

    monkeypatch.setattr(owner, step, strike)
    run.update(workers=3)
    until(lambda: run.state == "running")
    assert killed[0] not in run._driver.placement.addresses
    assert (run.workers, run._driver.generation.number) == (2, 2)
    run.stop()
    assert run.state == "stopped"


@pytest.mark.parametrize(("strategy", "rank"), [(AllReduce(), 1), (ParameterServer("async"), 0)])
def test_a_worker_that_closes_hands_over(watch: Watch, cluster: Client, strategy: Strategy, rank: int) -> None:
    async def close(dask_worker: Worker) -> None:
        dask_worker.loop.add_callback(dask_worker.close, nanny=False)

    run = started(strategy, workers=2, epochs=10**6)
    until(lambda: len(run.history) > 3)
    address = run._driver.placement.addresses[rank]
    cluster.run(close, workers=[address])
    until(lambda: address not in run._driver.placement.addresses and run.state == "running")
    assert "workers=1" in told(run)
    assert "lost" not in told(run)
    run.stop()
    assert run.state == "stopped"


def test_a_choice_of_how_many_is_checked(cluster: Client) -> None:
    for workers, words in (((3, 2), "two positive integers"), ((0, 2), "two positive"), ((1, 2, 3), "a range is")):
        with pytest.raises(ValueError, match=words):
            started(AllReduce(), workers=workers)
    with pytest.raises(ValueError, match=r"workers=\(90, 100\)"):
        started(AllReduce(), workers=(90, 100), client=cluster)
