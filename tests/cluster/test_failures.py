"""What is broken on purpose ends the run with words that name it, and leaves nothing behind: on real workers."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import time
import traceback
from dataclasses import dataclass
from typing import final

import cloudpickle
import dask
import numpy as np
import pytest
from distributed import Client, Event

import scaleml
from embedded import embedded
from runtime import harness, reference
from runtime.aftermath import Watch
from runtime.test_strategies import BATCH, COLUMNS, SHARDS, close, linear, made, problem
from scaleml import RunFailed
from scaleml.cluster import calls
from scaleml.cluster.placement import candidates
from scaleml.faults import Crash, Kill
from scaleml.models import LinearModel, Model, Network
from scaleml.optim import SGD, Optimizer
from scaleml.strategies import AllReduce, Gossip, Hogwild, LocalSGD, ParameterServer, Serial

cloudpickle.register_pickle_by_value(sys.modules[__name__])
STRATEGIES = [Serial(), AllReduce(), LocalSGD(3), ParameterServer(), ParameterServer(servers=2)]
LONG = 10**7
SOON = 5.0  # seconds in which a failure must be told; promised are 2


begun: list[scaleml.Run] = []


def started(strategy, workers=3, **settings):
    x, y, _ = made("binary")
    usual = {"optimizer": SGD(0.1), "shards": SHARDS, "epochs": LONG, "batch_size": BATCH, "on_worker_lost": "raise"}
    run = scaleml.start(linear("binary"), x, y, strategy=strategy, workers=workers, **{**usual, **settings})
    begun.append(run)
    return run


def under_way(run):
    """Wait until the ranks have taken steps."""
    assert harness.await_condition(lambda: run.over or (run.state == "running" and len(run.history) > 3))
    assert run.state == "running", run.error
    return run


def failure(run, seconds=30.0):
    """Wait for the run to fail; return its words."""
    with pytest.raises(RunFailed) as caught:
        run.wait(seconds)
    assert run.state == "failed"
    assert str(caught.value) == run.error
    return run.error


def works(client, workers=3):
    """Whether the next run on the same cluster is as if nothing had been."""
    client.wait_for_workers(workers, timeout=30)
    run = started(AllReduce(), workers, epochs=2).wait(30)
    expected = reference.serial(problem("binary"), np.zeros(COLUMNS + 1), reference.Sgd(0.1), 2, BATCH)
    close(run.params, expected)
    assert run.state == "finished"


@pytest.fixture(scope="module")
def cluster():
    """The embedded cluster, as a run without a client makes it."""
    return embedded(5)


@pytest.fixture(scope="module")
def warm(cluster):
    """All workers have had a rank: what a process keeps from its first run is no leak."""
    works(cluster, 5)
    return cluster


@pytest.fixture
def watch(warm):
    made = Watch(warm)
    yield made
    while begun:  # a test that failed half-way must not fail the others
        begun.pop().stop()
    made.nothing_left()
    works(warm)
    made.nothing_left()


@pytest.mark.parametrize("strategy", STRATEGIES, ids=repr)
def test_a_crash_names_rank_worker_step_and_cause(watch, strategy):
    rank = 0 if strategy == Serial() else 1
    run = started(strategy, faults=[Crash(rank, 7)])
    worker = run._driver.placement.addresses[rank]
    words = failure(run)
    assert words.startswith(f"rank {rank} on worker {worker} failed at step 7: InjectedCrash")
    assert np.isfinite(run.params).all()
    if strategy in (Serial(), AllReduce()):
        shards = 30
        last_good = reference.serial(
            problem("binary", shards=shards), np.zeros(COLUMNS + 1), reference.Sgd(0.1), 2, BATCH, steps=7
        )
        close(run.params, last_good)
    assert run.model.predict(made("binary")[0]).shape == (613,)


@pytest.mark.parametrize(
    ("strategy", "rank"),
    [
        (Serial(), 0), (AllReduce(), 1), (LocalSGD(3), 1), (Gossip(), 0), (Gossip(asynchronous=True), 1), (Hogwild(), 0),
        (ParameterServer(), 0),
        (ParameterServer(servers=2), 2), (ParameterServer(), 3), (ParameterServer("bsp", servers=2), 4),  # 3 and 4 are servers
    ],
    ids=str,
)  # fmt: skip
def test_a_killed_worker_is_named(watch, cluster, strategy, rank):
    cluster.wait_for_workers(5, timeout=30)
    processes = cluster.run(os.getpid)
    run = started(strategy, faults=[Kill(rank, 5)])
    worker = run._driver.placement.addresses[rank]
    words = failure(run)
    assert harness.await_condition(lambda: not alive(processes[worker])), "the fault did not happen"
    ranks = [r for r, address in enumerate(run._driver.placement.addresses) if address == worker]
    names = f"rank {rank} lost" if len(ranks) == 1 else f"ranks {', '.join(map(str, ranks))} lost"
    assert words.startswith(f"{names} at step ")
    assert f"the Dask worker {worker} is gone" in words


def alive(process):
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@final
@dataclass(frozen=True, repr=False)
class Deadly(Optimizer):
    """Kills the first worker that makes an update after so many in shared memory, under its lock."""

    folder: str
    learning_rate: float = 0.1
    schedule: str = "constant"
    power_t: float = 0.5
    alpha: float = 1e-4
    clip_norm: float | None = None
    tol: float = 1e-3
    n_iter_no_change: int = 5
    least: int = 20

    def slots(self):
        return ()

    def update(self, w, g, slots, t, rate):
        if t >= self.least and any(frame.filename.endswith("shared_client.py") for frame in traceback.extract_stack()):
            with contextlib.suppress(FileExistsError):
                os.mkdir(f"{self.folder}/dead")
                os.kill(os.getpid(), signal.SIGKILL)
        w -= rate * g


def test_who_dies_under_a_desks_lock_gives_it_back(watch, cluster, tmp_path):
    cluster.wait_for_workers(5, timeout=30)
    words = failure(started(ParameterServer(), optimizer=Deadly(str(tmp_path))))
    assert (tmp_path / "dead").exists(), "the fault did not happen"
    assert re.match(r"(rank [01]|ranks 2, 3) lost at step \d+: .*is gone", words), words


def test_others_go_on_without_who_died_under_the_lock(watch, cluster, tmp_path):
    cluster.wait_for_workers(5, timeout=30)
    deadly = Deadly(str(tmp_path), least=5000)  # when the client has long heard that all ranks have entered
    run = started(ParameterServer(), optimizer=deadly, on_worker_lost="replace", epochs=250).wait(60)
    assert (tmp_path / "dead").exists(), "the fault did not happen"
    assert any(change.kind == "recovery" and "go on as they are" in change.text for change in run.history.changes)
    assert np.isfinite(run.params).all()


@pytest.mark.parametrize(("strategy", "rank"), [(AllReduce(), 1), (ParameterServer(), 3)], ids=str)
def test_a_worker_killed_from_outside_is_told_soon(watch, cluster, strategy, rank):
    run = under_way(started(strategy))
    worker = run._driver.placement.addresses[rank]  # of a server also the worker of a rank that trains
    process = cluster.run(os.getpid, workers=[worker])[worker]
    began = time.monotonic()
    os.kill(process, signal.SIGKILL)
    words = failure(run)
    assert time.monotonic() - began < SOON
    found = re.match(r"(rank 1|ranks 2, 3) lost at step (\d+): ", words)
    assert found, words
    assert str(rank) in found[1]
    assert int(found[2]) > 0


@pytest.mark.parametrize("strategy", [AllReduce(), ParameterServer()], ids=repr)
def test_a_closed_client_ends_the_run(watch, cluster, strategy):
    mine = Client(cluster.scheduler.address, security=cluster.security, set_as_default=False)
    run = under_way(started(strategy, client=mine))
    began = time.monotonic()
    mine.close()
    words = failure(run)
    assert time.monotonic() - began < SOON
    assert "the Dask client is clos" in words


def test_a_killed_run_is_refused_on_a_cluster_of_the_user(cluster):
    with Client(cluster.scheduler.address, security=cluster.security, set_as_default=False) as mine:
        known = mine.scheduler.address
        assert known
        x, y, _ = made("binary")
        with pytest.raises(ValueError, match="only workers that scaleml started"):
            scaleml.start(linear("binary"), x, y, workers=1, client=mine, faults=[Kill(0, 1)])


@pytest.mark.parametrize(
    "strategy", [Serial(), AllReduce(), ParameterServer(), Hogwild(), Gossip(asynchronous=True)], ids=repr
)
def test_a_stopped_process_is_named_and_can_do_no_harm_when_it_wakes(watch, cluster, strategy):
    """Also where nobody waits for it."""
    with dask.config.set({"scaleml.comm.timeout": "1s"}):
        run = under_way(started(strategy))
        rank = 0 if strategy == Serial() else 1
        worker = run._driver.placement.addresses[rank]
        process = cluster.run(os.getpid, workers=[worker])[worker]
        os.kill(process, signal.SIGSTOP)
        try:
            words = failure(run, 20)
        finally:
            os.kill(process, signal.SIGCONT)
    assert re.match(
        rf"rank {rank} on worker {worker} stalled at step [1-9]\d*: it has not been heard for \d s, and is silent to Dask",
        words,
    )
    assert "its process is stopped" in words


def test_a_late_rank_is_named_with_what_keeps_its_worker_busy(watch, cluster):
    with dask.config.set({"scaleml.start-timeout": "1s"}):
        event = Event("let-go", client=cluster)
        last = candidates(calls.identity(cluster, 10), 3, True)[2]
        busy = cluster.submit(occupy, key="somebody-elses-task", workers=[last])
        assert harness.await_condition(lambda: busy.key in str(cluster.processing()[last]))
        words = failure(started(AllReduce()))
        event.set()
        busy.result(timeout=20)
        busy.release()
    assert words.startswith(f"rank 2 on worker {last} did not enter in time")
    assert "somebody-elses-task" in words


def occupy():
    Event("let-go").wait(30)


class Raising(Network):
    """Raises in the user's own code, at the sixth gradient."""

    calls = 0

    def loss_grad(self, *arguments, **named):
        self.calls += 1
        if self.calls == 6:
            raise ZeroDivisionError("a user's mistake")
        return super().loss_grad(*arguments, **named)


@dataclass(frozen=True)
class UsersModel(Model):
    dtype: str = "float64"

    @property
    def is_classifier(self):
        return True

    def build(self, signature):
        net = LinearModel(dtype=self.dtype).build(signature)
        return Raising(net.blocks, net.loss, signature, self.dtype, net.l1, net.l2, init_factor=0.0)


@pytest.mark.parametrize("strategy", [AllReduce(), ParameterServer()], ids=repr)
def test_a_users_mistake_is_told_in_its_own_words(watch, strategy):
    x, y, _ = made("binary")
    run = scaleml.start(UsersModel(), x, y, strategy=strategy, workers=3, epochs=10)
    words = failure(run)
    assert words.startswith("rank ")
    assert "failed at step 4: ZeroDivisionError: a user's mistake" in words  # the first gradient warms up


@pytest.mark.parametrize("strategy", STRATEGIES, ids=repr)
def test_what_runs_into_infinity_keeps_the_last_good_parameters(watch, strategy):
    x, y, _ = made("regression")
    run = scaleml.start(
        LinearModel("squared_error", dtype="float32"), 1e3 * x, y, strategy=strategy, optimizer=SGD(1e4), workers=3,
        epochs=50, batch_size=BATCH,
    )  # fmt: skip
    words = failure(run)
    assert words.startswith("rank ")
    assert "the gradient is not finite over all ranks" in words or re.search(
        "the loss is (inf|nan) over shards? ", words
    )
    assert "learning rate" in words
    assert np.isfinite(run.params).all()
