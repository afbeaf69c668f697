"""The whole cluster goes: processes of our own, so that nobody else's are harmed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from distributed import Client

import leaks
import scaleml
from leaks import of_this_process
from runtime import harness
from runtime.aftermath import strangers, threads_of_runs
from runtime.test_strategies import linear, made
from scaleml import RunFailed
from scaleml.strategies import AllReduce, ParameterServer


def dask(*arguments, folder):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    with open(Path(folder) / "log", "ab") as log:
        return subprocess.Popen([sys.executable, "-m", "dask", *arguments], stdout=log, stderr=log, env=environment)


@pytest.fixture
def own_cluster(tmp_path):
    """A scheduler and two workers without nannies: (client, scheduler's process, workers' processes)."""
    file = str(tmp_path / "scheduler.json")
    options = ["--scheduler-file", file, "--no-dashboard", "--host", "127.0.0.1"]
    scheduler = dask("scheduler", "--port", "0", *options, folder=tmp_path)
    workers = [
        dask("worker", "--no-nanny", "--nthreads", "1", "--local-directory", str(tmp_path), *options, folder=tmp_path)
        for _ in range(2)
    ]
    client = Client(scheduler_file=file, set_as_default=False, timeout=60)
    try:
        client.wait_for_workers(2, timeout=60)
        yield client, scheduler, workers
    finally:
        with contextlib.suppress(Exception):
            client.close(timeout=1)
        for process in (*workers, scheduler):
            process.kill()
            process.wait()


@pytest.mark.parametrize("strategy", [AllReduce(), ParameterServer()], ids=repr)
def test_a_killed_scheduler_ends_the_run_everywhere(own_cluster, strategy):
    client, scheduler, workers = own_cluster
    before = leaks.look(sockets=False)
    x, y, _ = made("binary")
    run = scaleml.start(linear("binary"), x, y, strategy=strategy, client=client, epochs=10**7)
    assert harness.await_condition(lambda: run.over or (run.state == "running" and len(run.history) > 3))
    assert run.state == "running", run.error
    began = time.monotonic()
    scheduler.send_signal(signal.SIGKILL)
    with pytest.raises(RunFailed, match=r"the cluster at tcp://.* is gone"):
        run.wait(30)
    assert time.monotonic() - began < 5
    for worker in workers:  # they close without a scheduler; what is left of the rank must go before
        assert harness.await_condition(lambda worker=worker: worker.poll() is not None or not ranks_of(worker.pid))
    left = leaks.look(sockets=False).minus(before)
    assert not [name for name in left.segments if of_this_process(name)]
    assert harness.await_condition(lambda: not threads_of_runs())


def ranks_of(process):
    """Established links between ranks: neither end is one of Dask's listeners, which are known by being listened at."""
    with contextlib.suppress(Exception):
        import psutil

        sockets = psutil.Process(process).net_connections("tcp")
        listened = frozenset(socket.laddr.port for socket in sockets if socket.status == "LISTEN")
        return [text for text in strangers(process, listened) if text.startswith("ESTABLISHED")]
    return []
