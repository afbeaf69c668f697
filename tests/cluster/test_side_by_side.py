"""Runs beside other runs and other tasks, from inside of one, and when nobody waits for them any more."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any

import cloudpickle
import dask
import pytest
from distributed import Client, Event, LocalCluster

import scaleml
from cluster.conftest import Problem, poll
from cluster.harness import nothing_left, running
from cluster.scripts import script
from leaks import look
from scaleml import Hogwild, ParameterServer, RunFailed, Serial
from scaleml.cluster.endpoint import abort_ranks

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import the tests' folder
pytestmark = pytest.mark.usefixtures("users_cluster_only")


# From inside, and side by side.


def from_a_task(how: str, arguments: dict[str, Any]) -> tuple[str, Any]:
    import distributed

    import scaleml

    if how == "nothing":
        run = scaleml.train(**arguments)
    elif how == "worker_client":
        with distributed.worker_client():
            run = scaleml.train(**arguments)
    else:
        distributed.secede()
        run = scaleml.train(**arguments, client=distributed.get_client() if how == "get_client" else None)
    return run.state, run.params


@pytest.mark.parametrize("how", ["nothing", "worker_client", "get_client", "secede"])
def test_from_inside_a_task_of_one_thread_workers(client: Client, problem: Problem, how: str) -> None:
    future = client.submit(from_a_task, how, problem.settings(), pure=False)
    state, params = future.result(60)
    assert state == "finished"
    problem.check(params, shards=2)


def test_two_runs_at_once_on_workers_of_one_thread(client: Client, problem: Problem) -> None:
    with nothing_left(client):
        with running(**problem.endless(client=client)) as first:
            second = scaleml.train(**problem.settings(client=client))
            with running(**problem.endless(client=client, strategy=ParameterServer("async"))) as third:
                assert first.state == "running"
                assert client.submit(int, 3, pure=False).result(10) == 3  # and other people's tasks get through
        problem.check(second.params, shards=2)
    assert (first.state, third.state) == ("stopped", "stopped")


def hold(name: str) -> None:
    Event(name).wait(60)


def test_a_worker_that_stays_busy_fails_the_start_and_the_error_names_its_task(
    client: Client, problem: Problem
) -> None:
    address = next(iter(client.scheduler_info(n_workers=-1)["workers"]))
    release = Event("release", client)
    blocker = client.submit(hold, "release", key="someone-elses-task", workers=[address], pure=False)
    assert poll(lambda: any("someone-elses-task" in keys for keys in client.processing().values()))
    try:
        with nothing_left(client):
            with (
                dask.config.set({"scaleml.start-timeout": "1s"}),
                pytest.raises(RunFailed, match="did not enter in time") as caught,
            ):
                scaleml.train(**problem.settings(client=client))
            assert address in str(caught.value)
            assert "someone-elses-task" in str(caught.value)
            assert "start-timeout" in str(caught.value)
    finally:
        release.set()
    blocker.result(30)
    problem.check(scaleml.train(**problem.settings(client=client)).params, shards=2)


def test_a_busy_worker_that_is_not_asked_for_does_not_matter(client: Client, problem: Problem) -> None:
    busy, free = client.scheduler_info(n_workers=-1)["workers"]
    release = Event("release-2", client)
    blocker = client.submit(hold, "release-2", workers=[busy], pure=False)
    try:
        run = scaleml.train(**problem.settings(client=client, workers=[free]))
    finally:
        release.set()
    problem.check(run.params, shards=1)
    blocker.result(30)


# Nobody waits any more: the ranks' threads end, also those of strategies that seldom talk.


def test_ranks_that_are_aborted(client: Client, problem: Problem) -> None:
    with nothing_left(client), contextlib.ExitStack() as runs:
        both = [
            runs.enter_context(running(**problem.endless(client=client, strategy=s))) for s in (Serial(), Hogwild())
        ]
        for run in both:
            client.run(abort_ranks, run._driver.run, "nobody wants it")
        for run in both:
            with pytest.raises(RunFailed, match="nobody wants it"):
                run.wait(30)


def test_ranks_of_a_client_that_was_killed(cluster: LocalCluster, client: Client, tmp_path: Path) -> None:
    code = f"""
    import dask
    import numpy as np
    from distributed import Client
    import scaleml

    dask.config.set({{"scaleml.client-timeout": "1s"}})
    X = np.random.default_rng(0).standard_normal((300, 4))
    client = Client({cluster.scheduler_address!r})
    runs = [
        scaleml.start(scaleml.LinearModel(), X, X[:, 0] > 0, strategy=strategy, epochs=10**9, client=client)
        for strategy in (scaleml.Serial(), scaleml.Hogwild())
    ]
    while any(run.state == "starting" for run in runs):
        pass
    print(*[run.state for run in runs], flush=True)
    runs[0].wait()
    """
    with nothing_left(client), script(code, tmp_path) as process:
        assert process.stdout is not None
        assert process.stdout.readline().split() == ["running", "running"], process.communicate()
        assert poll(lambda: sum(len(there.threads) for there in client.run(look, False).values()) >= 3, 10)
        process.kill()
