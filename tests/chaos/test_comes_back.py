"""A worker that comes back at the address that it had: killed or stopped, it is another; on workers with ports of their own."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from pathlib import Path

import dask
import pytest
from distributed import Client, LocalCluster
from numpy.testing import assert_array_equal

from cluster.shell import Shell
from cluster.test_recovery import often, recoveries, started, until
from scaleml.faults import Pause
from scaleml.strategies import AllReduce, ParameterServer, Strategy

pytestmark = pytest.mark.chaos


def two_ports() -> tuple[int, int]:
    """Return two free ports that follow each other."""
    for first in range(20000, 30000, 7):
        with contextlib.suppress(OSError), socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", first))
            other.bind(("127.0.0.1", first + 1))
            return first, first + 1
    raise AssertionError("no two ports are free")


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGSTOP])
def test_a_worker_that_comes_back_at_its_address(sign: signal.Signals) -> None:
    first, last = two_ports()
    with (
        dask.config.set({"scaleml.comm.timeout": "1s"}),
        LocalCluster(
            n_workers=2, threads_per_worker=1, worker_port=f"{first}:{last}", dashboard_address="127.0.0.1:0"
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        often(client)
        undisturbed = started(AllReduce(), workers=2, client=client, epochs=40).wait(60)
        run = started(AllReduce(), workers=2, client=client, epochs=40, faults=[Pause(1, 100, 1.0)])
        until(lambda: len(run.history) > 3)
        before = run._driver.placement.addresses
        process = client.run(os.getpid, workers=[before[1]])[before[1]]
        os.kill(process, sign)
        run.wait(60)
        assert len(recoveries(run)) == 1
        assert run._driver.placement.addresses == before
        assert client.run(os.getpid, workers=[before[1]])[before[1]] != process
        assert_array_equal(run.params, undisturbed.params)


@pytest.mark.parametrize("strategy", [AllReduce(), ParameterServer("bsp")], ids=repr)
def test_a_worker_without_a_nanny_that_is_started_again_by_hand(tmp_path: Path, strategy: Strategy) -> None:
    ports = dict(zip(("ann", "bob"), two_ports(), strict=True))
    options = {name: ["--no-nanny", "--worker-port", str(port)] for name, port in ports.items()}
    with Shell(tmp_path) as shell:
        file, _ = shell.cluster(options)
        processes = dict(zip(options, shell._started[1:], strict=True))
        with Client(scheduler_file=str(file), set_as_default=False) as client:
            client.wait_for_workers(2, timeout=60)
            undisturbed = started(strategy, workers=2, client=client, epochs=40).wait(60)
            run = started(strategy, workers=2, client=client, epochs=40, faults=[Pause(1, 100, 1.0)])
            until(lambda: len(run.history) > 3)
            before = run._driver.placement.addresses
            name = next(name for name, port in ports.items() if before[1].endswith(f":{port}"))
            processes[name].kill()
            until(lambda: run.state == "recovering")
            shell.worker(file, name, *options[name])
            run.wait(60)
            assert len(recoveries(run)) == 1
            assert run._driver.placement.addresses == before
            assert_array_equal(run.params, undisturbed.params)
