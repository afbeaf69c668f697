"""Examination: what each worker says of itself, asked one by one with deadlines, by a function that needs no scaleml there."""

from __future__ import annotations

import asyncio
import math
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypedDict

from distributed import Client

from scaleml.clock import WALL
from scaleml.cluster import calls
from scaleml.cluster.calls import WorkerFacts
from scaleml.cluster.installation import NEEDED, Installation, installation, minor, there
from scaleml.cluster.staging.memory import memory_of
from scaleml.cluster.user_modules import FRAMEWORKS
from scaleml.data.sealed import by_value
from scaleml.telemetry.cluster_report import WorkerReport

ANSWER: Final = 2.5
"""Seconds in which a worker that is not stopped says which Python it has."""
_IMPORT: Final = 20.0


class Machine(TypedDict):
    """What a worker says of where it runs: plain values."""

    began: float
    ended: float
    """By its own clock, seconds since 1970."""
    host: str
    cores: int
    shm: int
    shm_free: int
    blas: str
    blas_threads: int
    processor: str
    gpus: list[str]
    packages: dict[str, str]
    """Versions of frameworks by name, CuPy among them, of those that there are."""
    installed: Installation


@dataclass(frozen=True)
class Examined:
    """What one worker answered.

    Parameters
    ----------
    report : WorkerReport
        In the words of the report.
    installed : Installation or BaseException
        What it has installed, or why that is not known.
    """

    report: WorkerReport
    installed: Installation | BaseException


@by_value
def machine(needed: tuple[str, ...], frameworks: tuple[str, ...]) -> Machine:
    """Return what there is where this is called; it travels by value, for there may be no scaleml. Frameworks are looked for only."""
    import datetime as dt
    import importlib.metadata
    import os
    import pathlib
    import platform
    import shutil

    began = dt.datetime.now(dt.UTC).timestamp()
    installed = installation(needed)
    boot = pathlib.Path("/proc/sys/kernel/random/boot_id")
    shm = shutil.disk_usage("/dev/shm") if os.path.isdir("/dev/shm") else None
    blas, threads, processor = "", 0, ""
    try:
        import threadpoolctl

        for pool in threadpoolctl.threadpool_info():
            if pool.get("user_api") == "blas":
                blas = f"{pool.get('internal_api')} {pool.get('version') or ''}".strip()
                threads, processor = int(pool.get("num_threads") or 0), str(pool.get("architecture") or "")
    except Exception:  # noqa: BLE001  then it is not known
        pass
    gpus = []
    for card in sorted(pathlib.Path("/proc/driver/nvidia/gpus").glob("*/information")):
        lines = [line for line in card.read_text(errors="replace").splitlines() if line.startswith("Model:")]
        gpus.append(lines[0].partition(":")[2].strip() if lines else "NVIDIA")
    gpus = gpus or ["NVIDIA" for _ in pathlib.Path("/dev").glob("nvidia[0-9]*")]
    packages: dict[str, str] = {}
    for name in (*frameworks, "cupy", "cupy-cuda11x", "cupy-cuda12x", "cupy-cuda13x"):
        try:
            packages.setdefault(name.partition("-")[0], importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            pass
    return {
        "began": began,
        "host": boot.read_text().strip() if boot.exists() else platform.node(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "shm": shm.total if shm else 0,
        "shm_free": shm.free if shm else 0,
        "blas": blas,
        "blas_threads": threads,
        "processor": processor,
        "gpus": gpus,
        "packages": packages,
        "installed": installed,
        "ended": dt.datetime.now(dt.UTC).timestamp(),
    }


def examine(client: Client, workers: Mapping[str, WorkerFacts]) -> dict[str, Examined]:
    """Ask all workers at once, and return what each answered, or that it did not, by address.

    Parameters
    ----------
    workers : mapping
        What the scheduler says of them.
    """

    async def ask(address: str) -> dict[str, Any]:
        asked = WALL.now()
        versions = await asyncio.wait_for(calls.versions_on(client, address), ANSWER)
        told: dict[str, Any] = {"round_trip": WALL.now() - asked, "versions": versions, "machine": None, "error": None}
        if minor(_python(versions)) == minor(platform.python_version()):
            sent = datetime.now(UTC).timestamp()
            try:
                told["machine"] = await calls.on_worker(client, address, there(machine), NEEDED, FRAMEWORKS)
            except Exception as error:  # noqa: BLE001  whatever it is, it is the answer
                told["error"] = error
            told["sent"], told["received"] = sent, datetime.now(UTC).timestamp()
        return told

    answers = calls.ask_each(client, _IMPORT, ask, list(workers))
    return {address: _examined(address, facts, answers[address]) for address, facts in workers.items()}


def _python(versions: Mapping[str, str | None]) -> str:
    return ".".join(str(versions.get("python")).split(".")[:3])


def _examined(address: str, facts: WorkerFacts, told: dict[str, Any] | BaseException) -> Examined:
    limit, _ = memory_of(facts)
    known: dict[str, Any] = {
        "address": address,
        "name": str(facts.get("name")),
        "threads": int(facts["nthreads"]),
        "memory_limit": limit,
        "memory_used": int((facts.get("metrics") or {}).get("memory", 0)),
        "status": str(facts.get("status", "running")),
        "nanny": bool(facts.get("nanny")),
    }
    if isinstance(told, BaseException):
        return Examined(WorkerReport(**known, answers=False), told)
    versions = told["versions"]
    known |= {
        "round_trip": told["round_trip"],
        "python": _python(versions),
        "numpy": versions.get("numpy") or "",
        "dask": versions.get("dask") or "",
        "distributed": versions.get("distributed") or "",
    }
    found: Machine | None = told["machine"]
    if found is None:
        other: Installation = {
            "python": known["python"],
            "numpy": "",
            "scaleml": "",
            "build": "",
            "files": "",
            "missing": "",
            "error": "",
        }
        return Examined(WorkerReport(**known), told["error"] or other)
    installed = found["installed"]
    known |= {name: installed[name] for name in ("python", "numpy", "scaleml", "build")}
    known |= {name: found[name] for name in ("host", "cores", "shm", "shm_free", "blas", "blas_threads", "processor")}
    known |= {name: found["packages"].get(name, "") for name in (*FRAMEWORKS, "cupy")}
    return Examined(WorkerReport(**known, gpus=tuple(found["gpus"]), clock=_ahead(found, told)), installed)


def _ahead(found: Machine, told: Mapping[str, float]) -> float:
    """Return by how much a clock is ahead; 0 if the time that question and answer took allows that."""
    most, least = found["began"] - told["sent"], found["ended"] - told["received"]
    if not math.isfinite(most) or least <= 0 <= most:
        return 0.0
    return (most + least) / 2
