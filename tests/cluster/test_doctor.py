"""The doctor on a healthy cluster, on one whose ports are blocked, and on one whose scheduler is silent."""

from __future__ import annotations

import contextlib
from importlib import metadata
from typing import Any

import pytest
from click.testing import CliRunner
from distributed import Client

import leaks
import scaleml
from cluster.harness import nothing_left
from scaleml.__main__ import main
from scaleml.cluster import link_probe
from scaleml.comm import Listener


def test_a_healthy_cluster_is_ok_and_nothing_is_left(threads: Client) -> None:
    with nothing_left(threads), leaks.guard(sockets=False):
        report = scaleml.doctor(threads)
    assert report.ok, report
    assert [worker.name for worker in report.workers] == ["0", "1"]
    assert {worker.scaleml for worker in report.workers} == {scaleml.__version__}
    assert all(worker.clock == 0 for worker in report.workers)
    (link,) = report.links.links
    assert link.workers == tuple(worker.address for worker in report.workers)
    assert link.at.startswith("127.0.0.1:")
    assert report.links.latency[0, 1] == link.latency > 0
    assert "healthy" in repr(report)
    for name, label in (("torch", "PyTorch"), ("jax", "JAX"), ("keras", "Keras")):
        with contextlib.suppress(metadata.PackageNotFoundError):
            assert f"{label} {metadata.version(name)}" in repr(report)
            assert {getattr(worker, name) for worker in report.workers} == {metadata.version(name)}


def test_the_command_line_ends_with_status_0(threads: Client) -> None:
    said = CliRunner().invoke(main, ["doctor", str(threads.scheduler.address)])  # type: ignore[union-attr]
    assert (said.exit_code, said.exception) == (0, None), said.output
    assert said.output.startswith("This cluster is healthy")


def test_blocked_ports_between_workers_are_named_with_the_remedy(
    threads: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Elsewhere(Listener):
        """Says that it listens where nobody does."""

        def __init__(self, *arguments: Any, **settings: Any) -> None:
            super().__init__(*arguments, **settings)
            self.address = ("127.0.0.1", 1)

    monkeypatch.setattr(link_probe, "Listener", Elsewhere)
    monkeypatch.setattr(link_probe, "CONNECT", 0.2)
    with leaks.guard(sockets=False):
        report = scaleml.doctor(threads)
    first, second = (worker.address for worker in report.workers)
    (problem,) = [problem for problem in report.problems if problem.severity == "error"]
    assert problem.who == (first,)
    assert f"cannot be reached by worker {second} (127.0.0.1:1: " in problem.what
    assert report.links.failed[0].workers == (first, second)
    assert not report.ok


def test_a_scheduler_that_does_not_answer_is_a_report_too(threads: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(client: Client, seconds: float) -> Any:
        raise TimeoutError("asking the Dask scheduler for its workers took longer than 5 s")

    monkeypatch.setattr("scaleml.cluster.calls.identity", silent)
    report = scaleml.doctor(threads)
    assert not report.ok
    assert "does not answer (asking the Dask scheduler" in repr(report)
