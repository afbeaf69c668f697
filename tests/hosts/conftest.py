"""A cluster on two hosts that are network namespaces: a real scheduler, real workers, a network whose speed can be set."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from distributed import Client

from benchmarks import hosts as network

ROOT = Path(__file__).parents[2]
RANKS = 2
"""Workers on each host."""
PORT = 8786


@dataclass
class Site:
    """Two hosts, the client of the cluster on them, and its workers by host."""

    hosts: network.Hosts
    client: Client
    workers: list[list[str]]

    def one_each(self) -> list[str]:
        """Return a worker of each host."""
        return [mine[0] for mine in self.workers]

    def all(self) -> list[str]:
        """Return all workers, host by host."""
        return [address for mine in self.workers for address in mine]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    why = network.missing()
    if why:
        pytest.skip(f"no network namespaces: {why}")
    folder = tmp_path_factory.mktemp("hosts")
    started: list[subprocess.Popen[bytes]] = []
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

    def start(hosts: network.Hosts, host: int, *arguments: str) -> None:
        command = hosts.command(host, [sys.executable, "-m", "dask", *arguments])
        with (folder / f"{len(started)}.log").open("wb") as log:
            started.append(subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=folder))

    def logs() -> str:
        return "\n".join(path.read_text()[-1500:] for path in sorted(folder.glob("*.log")))

    with network.Hosts(2) as hosts:
        try:
            scheduler = f"tcp://{hosts.addresses[0]}:{PORT}"
            start(hosts, 0, "scheduler", "--host", hosts.addresses[0], "--port", str(PORT), "--no-dashboard")
            for host, address in enumerate(hosts.addresses):
                for rank in range(RANKS):
                    start(
                        hosts, host, "worker", scheduler, "--host", address, "--nthreads", "1", "--no-dashboard", "--no-nanny",
                        "--name", f"{host}-{rank}", "--memory-limit", "0", "--death-timeout", "60",
                        "--local-directory", str(folder / f"host-{host}"),
                    )  # fmt: skip
            with Client(scheduler, timeout=90, set_as_default=False) as client:
                client.wait_for_workers(2 * RANKS, timeout=90)
                yield Site(hosts, client, by_host(client, hosts))
        except (OSError, TimeoutError) as error:
            raise RuntimeError(f"the cluster did not come up: {error}\n{logs()}") from error
        finally:
            for process in reversed(started):
                process.kill()
            for process in started:
                process.wait(30)


def by_host(client: Client, hosts: network.Hosts) -> list[list[str]]:
    info: dict[str, Any] = client.scheduler_info(n_workers=-1)["workers"]
    return [sorted(worker for worker in info if f"//{address}:" in worker) for address in hosts.addresses]
