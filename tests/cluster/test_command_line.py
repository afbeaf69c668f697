"""Clusters that were started from a shell: ``dask scheduler`` and ``dask worker``, in the clear and under TLS."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import dask
import pytest
from distributed import Client
from distributed.security import Security
from numpy.testing import assert_array_equal

import leaks
import scaleml
from certificates import Authority
from cluster.conftest import Problem, poll
from cluster.harness import nothing_left, running, sockets_of_links
from cluster.shell import Shell
from scaleml import MLP, AllReduce, ParameterServer, RunFailed
from scaleml.cluster.errors import StartFailed
from scaleml.faults import Kill
from scaleml.linear_model import SGDClassifier

for module in (__name__, "cluster.harness"):  # workers cannot import the tests' folder
    cloudpickle.register_pickle_by_value(sys.modules[module])
pytestmark = pytest.mark.usefixtures("users_cluster_only")
LIMIT = "400MB"
GPU = {"GPU": 1}


def tls(authority: Authority, who: str) -> list[str]:
    """The options of a process with a certificate of its own."""
    certificate, key = authority.certify(who)
    return ["--tls-ca-file", str(authority.file), "--tls-cert", str(certificate), "--tls-key", str(key)]


@pytest.fixture(scope="module", params=["tcp", "tls"])
def client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """Two worker processes; one, bob, has a resource."""
    folder = tmp_path_factory.mktemp(request.param)
    secure, security = {"scheduler": [], "ann": [], "bob": []}, None
    if request.param == "tls":
        authority = Authority(folder)
        secure = {who: tls(authority, who) for who in secure}
        certificate, key = authority.certify("client")
        security = Security(
            tls_ca_file=str(authority.file),
            tls_client_cert=str(certificate),
            tls_client_key=str(key),
            require_encryption=True,
        )
    limit = ["--memory-limit", LIMIT]
    with Shell(folder) as shell:
        workers = {"ann": [*secure["ann"], *limit], "bob": [*secure["bob"], *limit, "--resources", "GPU=1"]}
        protocol = ["--protocol", request.param]
        file, _ = shell.cluster({who: [*w, *protocol] for who, w in workers.items()}, *protocol, *secure["scheduler"])
        with Client(scheduler_file=str(file), set_as_default=False, security=security) as client:
            client.wait_for_workers(2, timeout=60)
            assert client.scheduler.address.startswith(f"{request.param}://")
            yield client


def test_it_trains_and_its_links_are_as_safe_as_the_cluster(client: Client, problem: Problem) -> None:
    with nothing_left(client):
        with running(**problem.endless(client=client)):
            kinds = client.run(sockets_of_links)
        run = scaleml.train(**problem.settings(client=client, workers=["bob", "ann"]))
    problem.check(run.params, shards=2)
    wanted = "socket AF_UNIX" if client.scheduler.address.startswith("tcp") else r"SSLSocket TLSv1\.[23]"
    assert len(kinds) == 2
    for of_a_worker in kinds.values():
        assert of_a_worker
        assert all(re.fullmatch(wanted, kind) for kind in of_a_worker), kinds


def test_an_estimator_trains_and_its_data_may_lie_there(client: Client, problem: Problem) -> None:
    clf = SGDClassifier("log_loss", strategy=AllReduce(), random_state=0)
    clf.client = client
    with nothing_left(client):
        assert clf.fit(problem.X, problem.y).score(problem.X, problem.y) > 0.9


def test_ranks_go_where_the_resources_are_that_dask_is_told_to_use(client: Client, problem: Problem) -> None:
    info = client.scheduler_info(n_workers=-1)["workers"]
    bob = next(address for address, facts in info.items() if facts["name"] == "bob")
    with nothing_left(client), dask.annotate(resources=GPU):
        with running(**problem.endless(client=client, strategy=ParameterServer("async"))) as run:
            used = client.run(held, workers=[bob])
            places = {address for address, keys in client.processing().items() if keys}
        assert run.workers == 1
        assert places == {bob}
        assert used == {bob: {"GPU": 0}}  # in use as long as the run lasts
        problem.check(scaleml.train(**problem.settings(client=client)).params, shards=1)


def held(dask_worker: Any) -> dict[str, float]:
    """What of a worker's resources is free; runs there."""
    return dict(dask_worker.state.available_resources)


@pytest.mark.parametrize(
    ("resources", "workers", "words"),
    [
        (GPU, 2, r"workers=2, but the Dask cluster has 1 with the resources {'GPU': 1}"),
        (GPU, ["ann"], r"are without the resources {'GPU': 1}, which dask.annotate asks for: choose among \['t"),
        ({"GPU": 2}, None, r"no worker of the Dask cluster has the resources {'GPU': 2}.*dask worker --resources"),
    ],
)
def test_resources_that_are_not_there_are_refused(
    client: Client, problem: Problem, resources: dict[str, float], workers: Any, words: str
) -> None:
    with nothing_left(client), dask.annotate(resources=resources), pytest.raises(ValueError, match=words):
        scaleml.train(**problem.settings(client=client, workers=workers))


def test_workers_with_too_little_memory_are_refused_with_figures(client: Client, problem: Problem) -> None:
    figures = r"16,036,001 parameters need about \d+ MB a worker: parameters 64 MB, gradient 64 MB, copies that come and go \d+ MB; "
    figures += r"but worker t.* has 400 MB, of which its process takes \d+ MB already.*\(memory_limit\)"
    with nothing_left(client), pytest.raises(StartFailed, match=figures):
        scaleml.train(**problem.settings(client=client, model=MLP((4000, 4000), dtype="float32")))
    problem.check(scaleml.train(**problem.settings(client=client)).params, shards=2)


def test_a_killed_worker_is_replaced_under_tls_too(client: Client, problem: Problem) -> None:
    if client.scheduler.address.startswith("tcp"):
        pytest.skip("tests/cluster/test_recovery.py has many")
    settings = problem.settings(client=client, epochs=30)
    undisturbed = scaleml.train(**settings)
    before = set(client.run(os.getpid).values())
    run = scaleml.train(faults=[Kill(rank=1, step=100, allow_kill=True)], **settings)
    assert len(before - set(client.run(os.getpid).values())) == 1, "the fault did not happen"
    assert run.history.recoveries[0].what.startswith("rank 1 replaced")
    assert_array_equal(run.params, undisturbed.params)


def test_how_the_end_of_a_cluster_is_told(problem: Problem, tmp_path: Path) -> None:
    # An option for the test's sake only: the client gives up on its scheduler sooner than after 30 s.
    patience = dask.config.set({"distributed.comm.timeouts.connect": "1s"})
    with Shell(tmp_path) as shell, patience:
        file, scheduler = shell.cluster({"ann": [], "bob": []})
        with Client(scheduler_file=str(file), set_as_default=False) as client:
            client.wait_for_workers(2, timeout=60)
            segments = leaks.look(sockets=False).segments
            with running(**problem.endless(client=client)) as run:
                scheduler.kill()  # the cluster vanishes: workers without a scheduler end by themselves
                with pytest.raises(RunFailed, match=r"Dask client|Dask worker|scheduler"):
                    run.wait(30)
            assert poll(lambda: leaks.look(sockets=False).segments <= segments)
