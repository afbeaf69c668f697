"""What a run uses of its workers' hosts: ports and BLAS threads."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from typing import Any

import cloudpickle
import dask
import pytest
from distributed import Client, LocalCluster

import scaleml
from cluster.conftest import LOCAL, Problem
from cluster.harness import nothing_left, running
from scaleml import AllReduce, ParameterServer, RunFailed, Serial
from scaleml.cluster.launcher import Launcher

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import the tests' folder
pytestmark = pytest.mark.usefixtures("users_cluster_only")


# What a run finds and gives back.


def blas_threads() -> list[int]:
    from threadpoolctl import threadpool_info

    return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]


def limit_blas(threads: int) -> None:
    from threadpoolctl import threadpool_limits

    threadpool_limits(threads)


@pytest.mark.parametrize(("before", "strategy", "pinned"), [(1, AllReduce(), 2), (2, Serial(threads=1), 1)])
def test_blas_threads_are_pinned_while_it_runs_and_come_back(
    problem: Problem, before: int, strategy: Any, pinned: int
) -> None:
    with (
        LocalCluster(n_workers=1, processes=True, **{**LOCAL, "threads_per_worker": 2}) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        client.run(limit_blas, before)
        with running(**problem.endless(client=client, strategy=strategy)) as run:
            (during,) = client.run(blas_threads).values()
        (after,) = client.run(blas_threads).values()
    assert set(during) == {pinned}
    assert set(after) == {before}
    assert run.threads == pinned


def free_ports(count: int) -> tuple[int, int]:
    """A range of so many ports that nobody listens on now."""
    for first in range(20_000 + os.getpid() % 20_000, 60_000, count):
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for port in range(first, first + count):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return first, first + count - 1
    raise AssertionError("no free ports")


def test_ranks_listen_on_the_ports_they_are_given(
    client: Client, problem: Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    books: list[tuple[str, int]] = []
    real = Launcher.open_endpoints

    def spy(self: Launcher) -> dict[str, Any]:
        answers = real(self)
        books.extend(place for answer in answers.values() for place in answer["addresses"].values())
        return answers

    monkeypatch.setattr(Launcher, "open_endpoints", spy)
    first, last = free_ports(4)
    with dask.config.set({"scaleml.comm.port-range": f"{first}:{last}"}):
        run = scaleml.train(**problem.settings(client=client, strategy=ParameterServer("async")))
    assert run.state == "finished"
    assert len({port for _, port in books}) == 3
    assert all(first <= port <= last and host == "127.0.0.1" for host, port in books)


def test_no_free_port_is_an_error_that_names_the_range(client: Client, problem: Problem) -> None:
    with socket.socket() as taken, nothing_left(client):
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with (
            dask.config.set({"scaleml.comm.port-range": f"{port}:{port}"}),
            pytest.raises(RunFailed, match=rf"worker tcp://.*port of {port} to {port}"),
        ):
            scaleml.train(**problem.settings(client=client))


@pytest.mark.parametrize("value", ["9000", "9100:9000", "0:5", "a:b", 9000])
def test_a_wrong_port_range_is_refused(client: Client, problem: Problem, value: Any) -> None:
    with (
        nothing_left(client),
        dask.config.set({"scaleml.comm.port-range": value}),
        pytest.raises((ValueError, RunFailed), match=rf"port-range={value!r}: must be 'first:last'"),
    ):
        scaleml.train(**problem.settings(client=client))
