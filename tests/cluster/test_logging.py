"""What a program that listens hears of a run: where its ranks are, what was lost, how it ended; and silence for all others."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys

import pytest
from distributed import Client, LocalCluster

import scaleml
from cluster.conftest import LOCAL, Problem, poll
from cluster.harness import running
from scaleml import RunFailed


def said(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    """What scaleml logged at a level, of this test's runs."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno == level and record.name.startswith("scaleml.")
    ]


def test_a_run_tells_where_it_is_and_how_it_ends(
    client: Client, problem: Problem, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "scaleml"), running(**problem.endless(client=client)) as run:
        run.update(learning_rate=0.25)
        run.stop()
    name = run._driver.name
    workers = list(client.scheduler_info(n_workers=-1)["workers"])
    settings, placed, entered, ended = said(caplog, logging.INFO)
    assert settings.startswith(f"run {name}: AllReduce(), SGD(learning_rate=0.5")
    assert placed.startswith(f"run {name}: placed the ranks of AllReduce(): 0 on tcp://")
    assert all(address in placed for address in workers)
    assert [entered, ended] == [f"run {name}: running", f"run {name}: stopped"]
    details = said(caplog, logging.DEBUG)
    assert f"run {name}: command 1: update {{'learning_rate': 0.25}}" in details
    assert sum("Applied(rank=" in detail for detail in details) == 4  # the update and the stop, on two ranks
    assert {record.name for record in caplog.records if record.name.startswith("scaleml.")} >= {
        "scaleml.api.launch",
        "scaleml.cluster.driver",
        "scaleml.cluster.gathering",
    }


def test_a_lost_worker_is_told(problem: Problem, caplog: pytest.LogCaptureFixture) -> None:
    with (
        LocalCluster(n_workers=2, processes=True, **LOCAL) as cluster,
        Client(cluster, set_as_default=False) as client,
        caplog.at_level(logging.INFO, "scaleml"),
    ):
        run = scaleml.start(**problem.endless(client=client, on_worker_lost="raise"))
        assert poll(lambda: run.state == "running" and len(run.history) > 3)
        victim = run._driver.placement.addresses[1]
        os.kill(client.run(os.getpid, workers=[victim])[victim], signal.SIGKILL)
        with pytest.raises(RunFailed):
            run.wait(30)
    *_, lost, ended = said(caplog, logging.INFO)
    assert lost.startswith(f"run {run._driver.name}: lost worker {victim} at step ")
    assert ended == f"run {run._driver.name}: failed: {run.error}"


def test_without_a_listener_nothing_is_said() -> None:
    code = """
        import logging
        import scaleml
        logging.getLogger("scaleml.cluster.driver").error("nobody wants to know")
    """
    lines = "\n".join(line.strip() for line in code.splitlines())
    done = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout + done.stderr == ""
