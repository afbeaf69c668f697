"""Workers that are known by a host's name, by IPv6, or one of each."""

from __future__ import annotations

import socket

import dask.array as da
import pytest
from distributed import Client, Scheduler, SpecCluster, Worker

import leaks
import scaleml
from cluster.conftest import Problem
from scaleml import AllReduce, ParameterServer

pytestmark = pytest.mark.usefixtures("users_cluster_only")


def free_port(host: str) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as sock:
        sock.bind((host, 0))
        return int(sock.getsockname()[1])


def worker(host: str, name: str | None = None) -> dict[str, object]:
    port = free_port(host)
    options: dict[str, object] = {
        "host": f"[{host}]" if ":" in host else host,
        "port": port,
        "nthreads": 1,
        "dashboard": False,
    }
    if name is not None:
        options["contact_address"] = f"tcp://{name}:{port}"
    return {"cls": Worker, "options": options}


def test_runs_finish_on_workers_however_they_are_known(problem: Problem) -> None:
    workers = {0: worker("127.0.0.1", "localhost"), 1: worker("::1")}
    scheduler = {"cls": Scheduler, "options": {"host": "127.0.0.1", "port": 0, "dashboard_address": "127.0.0.1:0"}}
    with (
        SpecCluster(workers=workers, scheduler=scheduler) as cluster,
        Client(cluster, set_as_default=False) as client,
        leaks.guard(sockets=False),
    ):
        for strategy in (AllReduce(), ParameterServer("bsp")):
            run = scaleml.train(**problem.settings(client=client, strategy=strategy))
            problem.check(run.params, shards=2)
        # Staged once: what a worker takes for its address is not taken for that of a lost one.
        staged = scaleml.train(
            **problem.settings(
                client=client, X=da.from_array(problem.X, chunks=(60, -1)), y=da.from_array(problem.y, chunks=60)
            )
        )
        assert staged.state == "finished"
        attempts = {str(key).split("-")[3] for key in all_keys(client) if str(key).startswith("scaleml-stage")}
        assert attempts == {"1"}


def all_keys(client: Client) -> list[object]:
    """Every key that the scheduler has ever moved."""
    return client.run_on_scheduler(lambda dask_scheduler: [entry[0] for entry in dask_scheduler.transition_log])
