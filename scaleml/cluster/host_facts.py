"""Host facts: what tells the workers' hosts and installations apart, asked once a worker."""

from __future__ import annotations

import os
import pathlib
import platform
import sys
import weakref
from collections.abc import Sequence
from typing import Final, TypedDict

import numpy as np
from dask.system import CPU_COUNT
from distributed import Client
from distributed.system import MEMORY_LIMIT

from scaleml.cluster import calls
from scaleml.cluster.errors import StartFailed

_TIMEOUT: Final = 30.0
"""Seconds for workers to import scaleml, the first time that they hear of it."""


class HostFacts(TypedDict):
    """What a process says of its host and of what is installed there: plain values, for they travel between versions."""

    boot: str
    """Tells hosts apart."""
    pid: int
    python: str
    numpy: str
    scaleml: str
    cores: int
    memory: int
    """Bytes, or what the process is limited to."""


_known: Final[weakref.WeakKeyDictionary[Client, dict[str, HostFacts]]] = weakref.WeakKeyDictionary()


def this_host() -> HostFacts:
    """Return the facts of the process that this is called in."""
    boot = pathlib.Path("/proc/sys/kernel/random/boot_id")
    return {
        "boot": boot.read_text().strip() if boot.exists() else platform.node(),
        "pid": os.getpid(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scaleml": sys.modules["scaleml"].__version__,
        "cores": int(CPU_COUNT),
        "memory": int(MEMORY_LIMIT),
    }


def hosts_of(client: Client, addresses: Sequence[str]) -> dict[str, HostFacts]:
    """Return the facts of each worker.

    Raises
    ------
    StartFailed
        When a worker cannot import scaleml, or has another version of it or of NumPy.
    """
    known = _known.setdefault(client, {})
    unknown = [address for address in addresses if address not in known]
    if unknown:
        answers = calls.on_workers(client, _TIMEOUT, this_host, workers=unknown, on_error="return")
        for address in unknown:
            known[address] = _checked(address, answers.get(address))
    return {address: known[address] for address in addresses}


def _checked(address: str, answer: HostFacts | BaseException | None) -> HostFacts:
    if "ModuleNotFoundError" in repr(answer):  # Dask wraps what happens before the call
        raise StartFailed(
            f"worker {address} cannot import scaleml or what it needs ({answer}): install scaleml there, in the same version as here"
        )
    if answer is None or isinstance(answer, BaseException):
        raise StartFailed(f"worker {address} does not answer: {answer or 'it left the cluster'}")
    here = this_host()
    for what, there, ours in (
        ("scaleml", answer["scaleml"], here["scaleml"]),
        ("numpy", answer["numpy"], here["numpy"]),
    ):
        if there != ours:
            raise StartFailed(
                f"worker {address} has {what} {there}, this process {ours}: install the same version on both"
            )
    return answer
