"""What is wrong with a cluster, from what it showed: one row a sickness, and nothing where there is none."""

from __future__ import annotations

import platform
import re
from dataclasses import replace
from importlib import metadata
from itertools import combinations
from typing import Any

import pytest

from scaleml.cluster.diagnosis import problems_of
from scaleml.cluster.examination import Examined
from scaleml.cluster.installation import installation
from scaleml.telemetry.cluster_report import WorkerReport
from scaleml.telemetry.links import Link, Links

HERE = installation(())
GOOD = WorkerReport(
    "", "", threads=1, memory_limit=10**9, memory_used=10**8, nanny=True, host="h", cores=4, shm=10**9, shm_free=10**9,
    python=platform.python_version(), numpy=HERE["numpy"], scaleml=HERE["scaleml"], build=HERE["build"], clock=0.0,
    dask=metadata.version("dask"), distributed=metadata.version("distributed"), blas="openblas 0.3", processor="SkylakeX",
    torch="2.1.0+cu121", jax="0.5",
)  # fmt: skip
WHO = ("tcp://10.0.0.1:1", "tcp://10.0.0.1:2", "tcp://10.0.0.1:3")


@pytest.fixture(autouse=True)
def frameworks(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this process has: a build of PyTorch, and JAX."""
    monkeypatch.setattr(
        "scaleml.cluster.diagnosis.version_of", {"torch": "2.1.0", "jax": "0.5", "keras": ""}.__getitem__
    )


def found(
    *changed: dict[str, Any],
    installed: dict[str, Any] | BaseException | None = None,
    links: Links | None = None,
    **settings: Any,
) -> list[str]:
    """Diagnose three workers, of which the last ones are changed; return severities and sentences."""
    changes = [{}] * (len(WHO) - len(changed)) + list(changed)
    reports = [replace(GOOD, address=address, **change) for address, change in zip(WHO, changes, strict=True)]
    examined = {report.address: Examined(report, HERE) for report in reports}
    if installed is not None:
        other: Any = installed if isinstance(installed, BaseException) else {**HERE, **installed}
        examined[WHO[2]] = Examined(reports[2], other)
    told = problems_of(examined, links or Links(), **{"tls": True, "ports": None, **settings})
    return [f"{problem.severity}: {problem}" for problem in told]


def linked(*bad: tuple[int, int], **changed: Any) -> Links:
    """Return links between all, of which some are changed."""
    good = {"latency": 1e-4, "bandwidth": 1e9}
    pairs = list(combinations(range(len(WHO)), 2))
    return Links(
        WHO, tuple(Link((WHO[i], WHO[j]), "10.0.0.1:9", **(changed if (i, j) in bad else good)) for i, j in pairs)
    )


def test_a_healthy_cluster_has_no_problem() -> None:
    assert found(links=linked()) == []


MISSING = {"scaleml": "", "missing": "scaleml", "error": "ModuleNotFoundError: x"}
ERRORS: dict[str, tuple[dict[str, Any] | BaseException, str]] = {
    "not installed": (MISSING, "cannot import scaleml .*: install scaleml=="),
    "another version": ({"scaleml": "0.0.9"}, r"has scaleml 0\.0\.9, this process .*: install the same version"),
    "another NumPy": ({"numpy": "1.0"}, r"has numpy 1\.0, this process .*: install the same version on both: numpy=="),
    "another Python": ({"python": "3.9.1"}, r"has Python 3\.9\.1, this process .*: use the same minor version"),
    "no NumPy": ({**MISSING, "numpy": "", "missing": "numpy"}, "or what it needs .*: install numpy there"),
    "a need": ({"missing": "threadpoolctl", "error": "E: y"}, r"needs \(E: y\): install threadpoolctl there"),
    "another layout": (
        {"build": "other", "missing": "scaleml.cluster.x", "error": "E"},
        r"other code under that version \(E\).*same build",
    ),
    "another build": ({"build": "other"}, "other code under that version: install .* from the same build"),
    "stopped": (TimeoutError(), "does not answer: its process is stopped"),
    "lost": (OSError("gone"), r"does not answer \(OSError: gone\)"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_what_would_end_runs_is_an_error_by_name(case: str) -> None:
    installed, words = ERRORS[case]
    (told,) = found(installed=installed)
    assert re.match(rf"error: worker {WHO[2]} .*{words}", told), told


WORKERS: dict[str, tuple[tuple[dict[str, Any], ...], str]] = {
    "paused": (({"status": "paused"},), "error: worker .*:3 is paused"),
    "BLAS": (({"blas": "mkl 2024"},), r"warning: worker .*:3 has other BLAS \(mkl 2024\) than most \(openblas 0\.3\)"),
    "kernels": (({"processor": "Haswell"},), r"warning: worker .*:3 has other BLAS kernels \(Haswell\)"),
    "threads": (({"threads": 2},), "warning: worker .*:3 has other threads"),
    "memory": (({"memory_used": 8 * 10**8},), r"warning: worker .*:3 has 800 MB of its limit of 1 GB"),
    "clock": (({"clock": -90.0},), "warning: worker .*:3 has a clock 90 s behind"),
    "dask": (({"dask": "2020.1"},), r"warning: worker .*:3 has dask 2020\.1"),
    "another PyTorch": (
        ({"torch": "2.0.1"},),
        r"warning: worker .*:3 has torch 2\.0\.1, this process 2\.1\.0: install torch==2\.1\.0 there: models of it are refused",
    ),
    "no JAX": (({"jax": ""},), r"note: worker .*:3 has no jax, this process 0\.5: install jax==0\.5 there to train models of it"),
    "nanny": (({"nanny": False},), "note: worker .*:3 has no nanny"),
    "gpu": (({"gpus": ("H200",)},), r"note: worker .*:3 has 1 GPU \(H200\), but no CuPy"),
    "cores": (({"cores": 2},) * 3, "warning: workers .* have a share of 2 cores that 3 workers of its host have 3 threads on"),
    "shm": (({"shm_free": 64 << 20},) * 3, "warning: workers .* have 67.1 MB free in /dev/shm for 3 workers"),
}  # fmt: skip


@pytest.mark.parametrize("case", WORKERS)
def test_what_makes_runs_slower_or_less_exact_is_said_with_whom(case: str) -> None:
    changed, words = WORKERS[case]
    (told,) = found(*changed)
    assert re.match(words, told), told


def test_one_that_nobody_reaches_is_named_once_and_a_single_blocked_pair_with_both() -> None:
    (told,) = found(links=linked((0, 2), (1, 2), error="timed out"))
    assert told.startswith(f"error: worker {WHO[2]} has no link to any other worker (10.0.0.1:9: timed out)")
    (told,) = found(links=linked((0, 1), error="refused"))
    assert told.startswith(
        f"error: worker {WHO[0]} cannot be reached by worker {WHO[1]} (10.0.0.1:9: refused): open the ports"
    )


def test_a_link_far_slower_than_most_is_named() -> None:
    (told,) = found(links=linked((0, 1), latency=1e-4, bandwidth=1e8))
    assert f"worker {WHO[0]} reaches worker {WHO[1]} at 100 MB/s, where 1 GB/s are usual" in told
    (told,) = found(links=linked((0, 1), latency=1e-2, bandwidth=1e9))
    assert "after 10 ms, where 100 us are usual" in told


def test_of_the_cluster_as_a_whole() -> None:
    assert found({"host": "other"}, tls=False)[0].startswith("note: what goes between hosts is not encrypted")
    assert found(ports=2)[0].startswith("error: workers ")
    (told,) = problems_of({}, Links(), tls=True, ports=None)
    assert str(told).startswith("the cluster has no workers: add some")
