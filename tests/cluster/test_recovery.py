"""A worker is killed and replaced: the run goes on, with the bits of one that nobody disturbed; on real workers."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import dask
import dask.array as da
import numpy as np
import psutil
import pytest
from distributed import Client
from numpy.testing import assert_array_equal

import scaleml
from cluster.shell import Shell
from embedded import embedded
from runtime import harness
from runtime.aftermath import Watch
from scaleml import RunFailed
from scaleml.cluster.rank_tasks import RankTasks
from scaleml.compression import TopK
from scaleml.faults import Kill
from scaleml.optim import SGD, Adam
from scaleml.runtime import recovery_points
from scaleml.strategies import AllReduce, Gossip, Hogwild, LocalSGD, ParameterServer, Serial, Strategy
from scaleml.telemetry.recovery import PHASES

cloudpickle.register_pickle_by_value(sys.modules[__name__])
RANDOM = np.random.default_rng(0)
X = RANDOM.standard_normal((600, 6))
Y = (X[:, 0] + X[:, 1] ** 2 > 0.5).astype(int)
SETTINGS: dict[str, Any] = {"optimizer": Adam(0.01), "epochs": 4, "batch_size": 24, "validation": 0.2, "seed": 3}
OUTER = LocalSGD(3, outer=SGD(0.7, momentum=0.9, nesterov=True))


@pytest.fixture(scope="module")
def cluster() -> Client:
    client = embedded(4)
    often(client)
    return client


@pytest.fixture
def watch(cluster: Client) -> Iterator[Watch]:
    cluster.wait_for_workers(4, timeout=30)
    scaleml.train(scaleml.MLP((4,)), X, Y, workers=4, **SETTINGS)  # what a process keeps from its first run is no leak
    made = Watch(cluster)
    yield made
    cluster.wait_for_workers(4, timeout=30)
    made.nothing_left()


def often(client: Client) -> None:
    """Have the workers that are there take a point in each boundary; those that come in their places take fewer."""
    client.run(setattr, recovery_points, "SECONDS", 0.0)
    client.run(setattr, recovery_points, "SHARE", 1e9)


def started(strategy: Strategy, workers: int = 3, **more: Any) -> scaleml.Run:
    return scaleml.start(scaleml.MLP((4,)), X, Y, strategy=strategy, workers=workers, **{**SETTINGS, **more})


def recoveries(run: scaleml.Run) -> list[str]:
    return [change.text for change in run.history.changes if change.kind == "recovery"]


def killed(client: Client, run: scaleml.Run, rank: int) -> None:
    """Kill the worker of a rank from outside."""
    address = run._driver.placement.addresses[rank]
    os.kill(client.run(os.getpid, workers=[address])[address], signal.SIGKILL)


def drop_scheduler(dask_worker: Any) -> None:
    """Break a worker's link to the scheduler: Dask's worker then closes itself."""
    dask_worker.loop.call_later(0.05, dask_worker.batched_stream.comm.abort)


def until(condition: Callable[[], bool]) -> None:
    assert harness.await_condition(condition, 30)


@pytest.mark.parametrize(
    ("strategy", "rank"),
    [
        (Serial(), 0),
        (AllReduce(), 0),
        (AllReduce(compression=TopK(0.25)), 2),
        (LocalSGD(3), 1),
        (OUTER, 1),
        (Gossip(), 1),
        (ParameterServer("bsp", servers=2), 2),
    ],
    ids=str,
)
def test_the_bits_are_those_of_an_undisturbed_run(watch: Watch, cluster: Client, strategy: Strategy, rank: int) -> None:
    undisturbed = started(strategy).wait(60)
    often(cluster)
    before = set(cluster.scheduler_info(n_workers=-1)["workers"])
    run = started(strategy, faults=[Kill(rank, 50)]).wait(60)
    assert len(before - set(cluster.scheduler_info(n_workers=-1)["workers"])) == 1, "the fault did not happen"
    (said,) = recoveries(run)
    which = "ranks 2, 3" if strategy.layout(3).servers else f"rank {rank}"
    assert said.startswith(f"{which} replaced: lost at step ")
    assert ("from the beginning" in said) is (strategy == Serial()), "nobody else has kept anything"
    (told,) = run.history.recoveries
    assert said.startswith(told.what)
    assert f"from step {told.goes_on_from}," in said or told.goes_on_from == -1
    assert told.is_over
    assert set(told.phases) == set(PHASES)
    assert min(told.phases.values()) >= 0
    assert told.sentence in run.summary()
    assert_array_equal(run.params, undisturbed.params)
    assert_array_equal(run.history.evaluations["loss"], undisturbed.history.evaluations["loss"])
    assert_array_equal(run.history.evaluations["step"], undisturbed.history.evaluations["step"])
    assert (np.diff(run.history.evaluations["time"]) > 0).all()
    for mine in range(run.workers):
        steps = run.history["step"][run.history["rank"] == mine]
        assert (np.diff(steps) >= 0).all(), "no step stands in the history twice"


def test_a_result_that_is_lost_before_it_was_fetched(
    watch: Watch, cluster: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = started(Serial()).wait(60)
    fetch, killed_at = RankTasks.result, []

    def late(tasks: RankTasks, *arguments: Any) -> Any:
        if not killed_at:
            killed_at.append(run._driver.placement.addresses[0])
            until(lambda: tasks.current[0].status == "finished")  # Dask has it
            killed(cluster, run, 0)
            until(lambda: tasks.current[0].status == "lost")
        return fetch(tasks, *arguments)

    monkeypatch.setattr(RankTasks, "result", late)
    run = started(Serial())
    assert run.wait(60).state == "finished"
    assert killed_at
    (said,) = recoveries(run)
    assert "from the beginning" in said
    assert_array_equal(run.params, undisturbed.params)


@pytest.mark.parametrize(
    ("strategy", "rank"),
    [
        (ParameterServer(), 2),  # with the server
        pytest.param(ParameterServer("ssp", staleness=2), 0, marks=pytest.mark.chaos),
        (ParameterServer("ssp", staleness=2), 2),
        (Hogwild(), 1),
        (Gossip(asynchronous=True), 1),
    ],
    ids=str,
)
def test_ranks_with_a_pace_of_their_own_go_on_as_they_are(
    watch: Watch, cluster: Client, strategy: Strategy, rank: int
) -> None:
    often(cluster)
    before = set(cluster.scheduler_info(n_workers=-1)["workers"])
    # Rank 0 hears of rank 2 through rank 1 alone: until a fresh process is warm both go on, in a short run for too long.
    epochs = 400 if isinstance(strategy, Gossip) else 20
    run = started(strategy, faults=[Kill(rank, 40)], epochs=epochs, optimizer=SGD(0.1)).wait(60)
    assert len(before - set(cluster.scheduler_info(n_workers=-1)["workers"])) == 1, "the fault did not happen"
    (said,) = recoveries(run)
    assert "others go on as they are" in said
    assert f" of rank {rank} lost" in said
    assert said in run.summary()
    assert f"of rank {rank} lost" in run.history.recoveries[0].sentence
    rows = [run.history["samples"][run.history["rank"] == mine].max() for mine in range(3)]
    # What no neighbour of a lost rank had taken in is trained on again.
    again = 0.2 if isinstance(strategy, Gossip) else 0.1
    assert sum(rows) == pytest.approx(run.total_samples, rel=again)
    loss = run.history.evaluations["loss"]
    assert loss[-1] < 0.7 * loss[0]
    steps = run.history["step"][run.history["rank"] == rank]
    assert steps.max() > 40, "the replacement trains"


def test_several_losses_one_after_the_other(watch: Watch, cluster: Client) -> None:
    undisturbed = started(AllReduce()).wait(60)
    faults = [Kill(0, 20), Kill(2, 60), Kill(2, 61)]
    run = started(AllReduce(), faults=faults).wait(60)
    assert len(recoveries(run)) == 3
    assert_array_equal(run.params, undisturbed.params)


def test_all_at_once_begin_again(watch: Watch, cluster: Client) -> None:
    undisturbed = started(AllReduce()).wait(60)
    run = started(AllReduce(), faults=[Kill(rank, 30) for rank in range(3)]).wait(60)
    assert "ranks 0, 1, 2 replaced" in recoveries(run)[-1]
    assert "from the beginning" in recoveries(run)[-1]
    assert_array_equal(run.params, undisturbed.params)


def test_a_paused_run_is_paused_again_and_settings_are_not_lost(watch: Watch, cluster: Client) -> None:
    run = started(AllReduce(), epochs=10**6, optimizer=SGD(0.1))
    until(lambda: len(run.history) > 3)
    run.update(learning_rate=1e-30)
    count = len(run.history.evaluations["loss"])
    until(lambda: len(run.history.evaluations["loss"]) > count + 1)
    loss = run.history.evaluations["loss"][-1]
    run.pause()
    killed(cluster, run, 1)
    until(lambda: bool(recoveries(run)) and run.state == "paused")
    run.resume()
    count = len(run.history.evaluations["loss"])
    until(lambda: len(run.history.evaluations["loss"]) > count + 3)
    run.stop()
    assert run.state == "stopped"
    assert run.plan.optimizer.learning_rate == 1e-30
    assert abs(run.history.evaluations["loss"][-1] - loss) < 1e-6


def test_a_paused_asynchronous_run_is_paused_again_and_told_what_it_missed(watch: Watch, cluster: Client) -> None:
    often(cluster)
    run = started(ParameterServer("ssp", staleness=2), epochs=10**6, optimizer=SGD(0.1))
    until(lambda: len(run.history) > 3)
    run.pause()
    killed(cluster, run, 2)
    until(lambda: bool(recoveries(run)) and run.state == "paused")
    run.update(learning_rate=1e-30)
    run.resume()
    count = len(run.history.evaluations["loss"])
    until(lambda: len(run.history.evaluations["loss"]) > count + 3)
    killed(cluster, run, 0)
    until(lambda: len(recoveries(run)) == 2 and run.state == "running")
    count = len(run.history.evaluations["loss"])
    until(lambda: len(run.history.evaluations["loss"]) > count + 3)
    run.stop()
    assert run.state == "stopped"
    last = run.history.evaluations["loss"][-3:]
    assert np.ptp(last) < 1e-9, "the replacements know of the new learning rate"
    assert (np.diff(run.history.evaluations["time"]) >= 0).all()


def test_rows_of_a_dask_array_are_computed_again(watch: Watch, cluster: Client) -> None:
    x, y = da.from_array(X, chunks=(100, -1)), da.from_array(Y, chunks=100)
    settings = {**SETTINGS, "strategy": AllReduce(), "workers": 3}
    undisturbed = scaleml.train(scaleml.MLP((4,)), x, y, **settings)
    run = scaleml.train(scaleml.MLP((4,)), x, y, faults=[Kill(1, 40)], **settings)
    assert len(recoveries(run)) == 1
    assert_array_equal(run.params, undisturbed.params)


def test_without_another_worker_the_run_fails_in_time(tmp_path: Path) -> None:
    names = ("ann", "bob", "cem", "dan")
    with (
        dask.config.set({"scaleml.recovery-timeout": "300ms"}),
        Shell(tmp_path) as shell,
        Client(
            scheduler_file=str(shell.cluster({name: ["--no-nanny"] for name in names})[0]), set_as_default=False
        ) as client,
    ):
        client.wait_for_workers(4, timeout=60)
        # One is told to go: it has no nanny that would close it, hands over all the same, and ends.
        run = started(ParameterServer(), workers=2, client=client, epochs=10**6)
        until(lambda: len(run.history) > 3)
        address = run._driver.placement.addresses[0]
        going = psutil.Process(client.run(os.getpid, workers=[address])[address])
        going.terminate()
        until(lambda: run.state == "running" and address not in run._driver.placement.addresses)
        assert [text for _, text in run.history.marks] == ["workers=1"]
        run.stop()
        going.wait(30)
        # With three workers and two ranks there is a spare one, once.
        run = started(AllReduce(), workers=2, client=client, epochs=10**6)
        until(lambda: len(run.history) > 3)
        client.run(drop_scheduler, workers=[run._driver.placement.addresses[1]])
        until(lambda: bool(recoveries(run)) and run.state == "running")
        killed(client, run, 0)
        words = r"rank 0 lost at step \d+: .* is gone .*no other worker has come within 0.3 s"
        with pytest.raises(RunFailed, match=words):
            run.wait(30)
        assert np.isfinite(run.params).all(), "the survivor has left its own"


def test_rows_that_come_back_as_others_end_the_run(watch: Watch, cluster: Client, tmp_path: Path) -> None:
    def changing(block: Any, folder: str) -> Any:
        calls = len(list(Path(folder).iterdir()))
        (Path(folder) / str(calls)).touch()
        return block + calls * 1e-3

    x = da.from_array(X, chunks=(100, -1)).map_blocks(changing, str(tmp_path), dtype=float)
    y = da.from_array(Y, chunks=100)
    words = r"rank 1 lost at step .*; partition \d of X was computed again.*holds other rows.*seed what is random"
    with pytest.raises(RunFailed, match=words):
        scaleml.train(scaleml.MLP((4,)), x, y, faults=[Kill(1, 40)], strategy=AllReduce(), workers=3, **SETTINGS)


def test_rows_that_nobody_can_compute_again_are_told_of_before(watch: Watch, cluster: Client) -> None:
    parts = cluster.scatter([X[start : start + 100] for start in range(0, 600, 100)], hash=False)
    x = da.concatenate([da.from_delayed(dask.delayed(part), (100, 6), float) for part in parts])
    words = r"rank 1 lost at step .*; what X is computed from has been cancelled.*scattered to a worker that is gone"
    with (
        pytest.warns(UserWarning, match=r"6 of the 6 parts of X were scattered.*Pass the arrays themselves"),
        pytest.raises(RunFailed, match=words),
    ):
        scaleml.train(
            *(scaleml.MLP((4,)), x, da.from_array(Y, chunks=100)),
            **{**SETTINGS, "strategy": AllReduce(), "workers": 3, "faults": [Kill(1, 40)]},
        )
