"""Clusters that the user brings, of every kind: the same result on each, and nothing of theirs is closed or left changed."""

from __future__ import annotations

import contextlib
import re
import sys
from typing import Any

import cloudpickle
import pytest
from distributed import Client, LocalCluster
from distributed.security import Security

import leaks
import scaleml
from cluster.conftest import LOCAL, Problem
from cluster.harness import nothing_left, running, sockets_of_links
from scaleml import AllReduce, LocalSGD, ParameterServer, RunFailed, Serial
from scaleml.cluster.errors import StartFailed
from scaleml.cluster.gathering import Gathering
from strangers import ANSWER, CALLS, Strangers

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import the tests' folder
pytestmark = pytest.mark.usefixtures("users_cluster_only")


# How a client is found.


def test_a_client_that_is_passed_is_used_and_stays_open(client: Client, problem: Problem) -> None:
    with nothing_left(client):
        run = scaleml.train(**problem.settings(client=client))
    assert (run.state, run.workers) == ("finished", 2)
    problem.check(run.params, shards=2)
    assert client.status == "running"
    assert client.submit(int, 3, pure=False).result(10) == 3


@pytest.mark.parametrize("current", ["default", "as_current"])
def test_the_current_client_is_found_and_stays_open(cluster: LocalCluster, problem: Problem, current: str) -> None:
    with Client(cluster, set_as_default=current == "default") as client:
        with client.as_current() if current == "as_current" else contextlib.nullcontext():
            run = scaleml.train(**problem.settings())
        problem.check(run.params, shards=2)
        assert len(client.get_events("scaleml")) > 0
        assert client.status == "running"


def test_what_is_to_be_closed_at_the_end_is_closed_also_when_that_has_come(client: Client, problem: Problem) -> None:
    run = scaleml.train(**problem.settings(client=client))
    closed: list[int] = []
    run.when_over(lambda: closed.append(1))
    assert closed == [1]


def test_a_failed_run_leaves_the_client_open_and_the_workers_free(client: Client, problem: Problem) -> None:
    with nothing_left(client):
        with pytest.raises(RunFailed, match=r"rank 1 on worker tcp://.* failed at step 3: .*Crash"):
            scaleml.train(**problem.settings(client=client, faults=[scaleml.faults.Crash(1, 3)]))
        assert client.status == "running"
    problem.check(scaleml.train(**problem.settings(client=client)).params, shards=2)


def test_every_strategy_runs_on_it(client: Client, problem: Problem) -> None:
    with nothing_left(client):
        for strategy in (Serial(), AllReduce(), LocalSGD(2), ParameterServer("async", servers=2)):
            run = scaleml.train(**problem.settings(client=client, strategy=strategy, epochs=8))
            assert run.state == "finished"
            assert run.model.score(problem.X, problem.y) > 0.85


# Which workers.


@pytest.mark.parametrize("by", ["number", "names", "addresses", "tuple"])
def test_workers_are_chosen_by_number_name_or_address(client: Client, problem: Problem, by: str) -> None:
    info = client.scheduler_info(n_workers=-1)["workers"]
    by_name = {facts["name"]: address for address, facts in info.items()}
    wanted, ranks = {
        "number": (1, [by_name[0]]),
        "names": ([1, "0"], [by_name[1], by_name[0]]),
        "addresses": ([by_name[1]], [by_name[1]]),
        "tuple": ((by_name[1], 0), [by_name[1], by_name[0]]),
    }[by]
    with running(**problem.endless(client=client, workers=wanted)) as run:
        processing = {key: address for address, keys in client.processing().items() for key in keys}
    assert [processing[key] for key in sorted(processing)] == ranks
    assert run.workers == len(ranks)


def test_more_shards_than_ranks_give_the_same_result_on_one_and_two(client: Client, problem: Problem) -> None:
    for workers in (1, 2):
        run = scaleml.train(**problem.settings(client=client, workers=workers, shards=6))
        problem.check(run.params, shards=6)


# Kinds of clusters.


def test_workers_that_are_threads_of_this_process(problem: Problem) -> None:
    with (
        LocalCluster(n_workers=2, processes=False, **LOCAL) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        assert client.scheduler.address.startswith("inproc://")
        with leaks.guard(sockets=False):
            run = scaleml.train(**problem.settings(client=client))
        problem.check(run.params, shards=2)
        assert client.status == "running"


def test_a_tls_cluster_has_tls_links(client: Client, problem: Problem) -> None:
    # Proof that the look below sees links: on the plain cluster they are plain sockets.
    with running(**problem.endless(client=client)):
        plain = client.run(sockets_of_links)
    assert all(kinds and {kind.split()[0] for kind in kinds} == {"socket"} for kinds in plain.values())

    security = Security.temporary()
    with (
        LocalCluster(n_workers=2, processes=True, security=security, **LOCAL) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        assert client.scheduler.address.startswith("tls://")
        with nothing_left(client):
            with running(**problem.endless(client=client)):
                kinds = client.run(sockets_of_links)
            assert len(kinds) == 2
            for of_a_worker in kinds.values():
                assert of_a_worker
                assert all(re.fullmatch(r"SSLSocket TLSv1\.[23]", kind) for kind in of_a_worker), kinds
        problem.check(scaleml.train(**problem.settings(client=client)).params, shards=2)


def test_strangers_at_the_ranks_doors_change_nothing(client: Client, problem: Problem, monkeypatch: Any) -> None:
    """Two hundred of them come as soon as the ranks listen, before these are told of each other."""
    specs = Gathering.specs

    def crowded(gathering: Gathering, endpoints: Any) -> Any:
        made = specs(gathering, endpoints)
        callers.append(doors.enter_context(Strangers([(host, port) for host, port in made[0].book])))
        return made

    callers: list[Strangers] = []
    with nothing_left(client), contextlib.ExitStack() as doors:
        monkeypatch.setattr(Gathering, "specs", crowded)
        run = scaleml.train(**problem.settings(client=client))
    problem.check(run.params, shards=2)
    assert [one.hung_up_on for one in callers] == [CALLS]
    assert max(map(len, callers[0].told)) <= ANSWER


def set_numpy_version(version: str) -> str:
    import numpy as np

    old, np.__version__ = np.__version__, version
    return old


def test_another_version_on_a_worker_is_refused_by_name(cluster: LocalCluster, problem: Problem) -> None:
    with Client(cluster, set_as_default=False) as client:  # a new one: it has asked no worker yet
        address = next(iter(client.scheduler_info(n_workers=-1)["workers"]))
        old = client.run(set_numpy_version, "1.0.0", workers=[address])[address]
        try:
            with (
                nothing_left(client),
                pytest.raises(
                    StartFailed, match=rf"{address} has numpy 1\.0\.0, this process .*install the same version"
                ),
            ):
                scaleml.train(**problem.settings(client=client))
        finally:
            client.run(set_numpy_version, old, workers=[address])
        problem.check(scaleml.train(**problem.settings(client=client)).params, shards=2)


def test_a_cluster_without_workers_is_refused(problem: Problem) -> None:
    with (
        LocalCluster(n_workers=0, processes=False, **LOCAL) as cluster,
        Client(cluster, set_as_default=False) as client,
        leaks.guard(sockets=False),
        pytest.raises(ValueError, match=r"no workers: add some \(cluster\.scale"),
    ):
        scaleml.train(**problem.settings(client=client))


def test_a_client_that_closes_ends_the_run_and_its_ranks(
    cluster: LocalCluster, client: Client, problem: Problem
) -> None:
    with nothing_left(client):
        own = Client(cluster, set_as_default=False)
        with running(**problem.endless(client=own)) as run:
            own.close()
            with pytest.raises(RunFailed, match=r"Dask client is clos.*it was closed"):
                run.wait(20)


def test_a_cluster_that_closes_ends_the_run(problem: Problem) -> None:
    with (
        LocalCluster(n_workers=2, processes=False, **LOCAL) as cluster,
        Client(cluster, set_as_default=False) as client,
        running(**problem.endless(client=client)) as run,
    ):
        cluster.close()
        with pytest.raises(RunFailed, match=r"Dask (client|worker)"):
            run.wait(20)
