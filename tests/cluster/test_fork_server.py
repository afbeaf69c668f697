"""The fork server: who is forked from it, what they share and what they do not, and how it ends."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import cloudpickle
import numpy as np
import psutil
import pytest
from distributed import Client

import scaleml
from cluster.conftest import Problem, poll
from cluster.scripts import alive
from embedded import dask_processes, embedded
from scaleml.cluster import embedded as clusters
from scaleml.cluster import fork_server
from scaleml.cluster.embedded import close_embedded, find_client

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import the tests' folder

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere every process is started apart")
COMMAND = "scaleml.cluster.fork_server"


@pytest.fixture
def client() -> Client:
    """The embedded cluster's."""
    return embedded(2)


def facts() -> dict[str, Any]:
    """What a worker knows of itself."""
    import os
    import random
    import sys

    heavy = sorted({"pandas", "sklearn", "dask.array"} & set(sys.modules))
    import numpy as np

    return {
        "pid": os.getpid(),
        "heavy": heavy,
        "ranks": "scaleml.cluster.rank_task" in sys.modules,
        "numbers": [random.random(), np.random.random()],  # noqa: NPY002
        "environment": {
            name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "MALLOC_TRIM_THRESHOLD_", "SCALEML_TEST")
        },
    }


def addresses(client: Client) -> set[str]:
    """The workers that the scheduler knows of; it asks none."""

    def known(dask_scheduler: Any) -> list[str]:
        return list(dask_scheduler.workers)

    return set(client.run_on_scheduler(known))


def is_forked(pid: int) -> bool:
    """Whether this process is the fork server, or a fork of it that has become something else."""
    return COMMAND in psutil.Process(pid).cmdline()


def test_workers_are_forks_that_share_code_and_no_random_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    close_embedded()
    monkeypatch.setenv("SCALEML_TEST", "as it was when it was started")
    client = embedded(2)
    found = list(client.run(facts).values())
    assert len(found) == 2
    assert all(is_forked(worker["pid"]) and worker["ranks"] for worker in found)
    assert [worker["heavy"] for worker in found] == [[], []], "imported for all, needed by none"
    for numbers in zip(*(worker["numbers"] for worker in found), strict=True):
        assert numbers[0] != numbers[1]
    wanted = {
        "OMP_NUM_THREADS": "1",
        "MALLOC_TRIM_THRESHOLD_": "65536",
        "SCALEML_TEST": "as it was when it was started",
    }
    assert all(worker["environment"] == wanted for worker in found)


def test_a_fork_draws_other_numbers_where_numpy_was_there_before() -> None:
    state = np.random.get_state()  # noqa: NPY002
    try:
        np.random.seed(3)  # noqa: NPY002
        wanted = np.random.random(4)  # noqa: NPY002
        np.random.seed(3)  # noqa: NPY002
        fork_server._reseed()
        assert not np.isin(np.random.random(4), wanted).any()  # noqa: NPY002
    finally:
        np.random.set_state(state)  # noqa: NPY002


def test_a_replacement_is_a_fork_too(client: Client) -> None:
    before, old = {worker["pid"] for worker in client.run(facts).values()}, addresses(client)
    nanny = psutil.Process(min(before)).parents()[1]  # between them stands the process that forks
    assert is_forked(nanny.pid)
    os.kill(min(before), signal.SIGKILL)

    assert poll(lambda: len(addresses(client) - old) == 1, 60)
    new = {worker["pid"]: worker for worker in client.run(facts).values() if worker["pid"] not in before}
    assert len(new) == 1
    ((pid, worker),) = new.items()
    assert is_forked(pid)
    assert worker["heavy"] == []
    assert nanny in psutil.Process(pid).parents()


def test_without_the_process_that_forks_workers_the_nanny_starts_them_another_way(
    client: Client, problem: Problem
) -> None:
    before, old = {worker["pid"] for worker in client.run(facts).values()}, addresses(client)
    forking, nanny = psutil.Process(min(before)).parents()[:2]
    forking.kill()
    assert poll(lambda: not alive([forking.pid, min(before)]), 30), "a worker that nobody watches"

    assert poll(lambda: len(addresses(client) - old) == 1, 60)
    problem.check(scaleml.train(**problem.settings(workers=2)).params, shards=2)
    new = {worker["pid"] for worker in client.run(facts).values()} - before
    assert len(new) == 1
    assert nanny in psutil.Process(new.pop()).parents()


def test_its_forks_follow_a_killed_server_and_the_next_run_has_another(client: Client, problem: Problem) -> None:
    (server,) = [child for child in psutil.Process().children() if COMMAND in child.cmdline()]
    forks = [process.pid for process in dask_processes()]
    assert len(forks) >= 5
    server.kill()
    assert poll(lambda: not alive(forks), 20), alive(forks)
    assert poll(lambda: client.status != "running", 20), client.status
    problem.check(scaleml.train(**problem.settings(workers=2)).params, shards=2)
    assert find_client(None)[0] is not client


def test_where_nothing_can_be_forked_all_are_started_apart(monkeypatch: pytest.MonkeyPatch, problem: Problem) -> None:
    close_embedded()
    monkeypatch.setattr(clusters, "CPU_COUNT", 1)
    monkeypatch.setattr(clusters, "ForkServer", lambda folder: None)
    problem.check(scaleml.train(**problem.settings(workers=1)).params, shards=1)
    commands = [process.cmdline() for process in dask_processes()]
    assert not any(COMMAND in command for command in commands)
    assert sum("spec" in command for command in commands) == 2, "a scheduler and a nanny"
    close_embedded()
