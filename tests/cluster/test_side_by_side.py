"""Runs beside other runs and other tasks, and from inside of one."""

from __future__ import annotations

import sys
from typing import Any

import cloudpickle
import dask
import pytest
from distributed import Client, Event

import scaleml
from cluster.conftest import Problem, poll
from cluster.harness import nothing_left, running
from scaleml import ParameterServer, RunFailed

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
