"""Host facts: what tells the workers' hosts apart, asked once a worker, after what is installed there was found right."""

from __future__ import annotations

import os
import pathlib
import platform
import weakref
from collections.abc import Mapping, Sequence
from typing import Final, TypedDict

from dask.system import CPU_COUNT
from distributed import Client
from distributed.system import MEMORY_LIMIT

from scaleml.cluster import calls
from scaleml.cluster.calls import WorkerFacts
from scaleml.cluster.errors import StartFailed
from scaleml.cluster.installation import IMPORTING, installations, mismatches
from scaleml.cluster.process_state import own_name
from scaleml.devices import has_library
from scaleml.telemetry.problem import merged


class HostFacts(TypedDict):
    """What a process says of its host."""

    boot: str
    """Tells hosts apart."""
    pid: int
    process: str
    """Its name, which no other has: see `scaleml.cluster.process_state`."""
    cores: int
    memory: int
    """Bytes, or what the process is limited to."""
    gpu_library: bool
    """Whether CuPy is installed."""


_known: Final[weakref.WeakKeyDictionary[Client, dict[str, tuple[str, HostFacts]]]] = weakref.WeakKeyDictionary()
"""By client and address: which start of the worker that was, and its facts."""


def this_host() -> HostFacts:
    """Return the facts of the process that this is called in."""
    boot = pathlib.Path("/proc/sys/kernel/random/boot_id")
    return {
        "boot": boot.read_text().strip() if boot.exists() else platform.node(),
        "pid": os.getpid(),
        "process": own_name(),
        "cores": int(CPU_COUNT),
        "memory": int(MEMORY_LIMIT),
        "gpu_library": has_library(),
    }


def hosts_of(
    client: Client, addresses: Sequence[str], workers: Mapping[str, WorkerFacts] | None = None
) -> dict[str, HostFacts]:
    """Return the facts of each worker; each is asked once, before it is sent anything that needs scaleml there.

    Parameters
    ----------
    client : Client
        The cluster.
    addresses : sequence of str
        Of the workers.
    workers : mapping, optional
        What the scheduler has just said of them: who was started anew is asked anew.

    Raises
    ------
    StartFailed
        When a worker does not answer, or cannot run what this process would send it: no scaleml, another version or build of it,
        another NumPy or Python. Names all of them, with the remedies.
    """
    known = _known.setdefault(client, {})
    starts = {address: start_of(workers[address]) if workers else known.get(address, ("",))[0] for address in addresses}
    unknown = [address for address in addresses if address not in known or starts[address] != known[address][0]]
    if unknown:
        found = installations(client, unknown, IMPORTING)
        problems = merged(mismatches(found))
        if problems:
            raise StartFailed(
                f"{'; '.join(map(str, problems))}. Nothing was sent there; workers= takes others, and scaleml.doctor(client) says more"
            )
        answers = calls.on_workers(client, calls.CALL_TIMEOUT, this_host, workers=unknown, on_error="return")
        for address in unknown:
            answer = answers.get(address)
            if answer is None or isinstance(answer, BaseException):
                raise StartFailed(f"worker {address} does not answer: {answer or 'it left the cluster'}")
            known[address] = starts[address], answer
    return {address: known[address][1] for address in addresses}


def is_known(client: Client, address: str) -> bool:
    """Whether a worker was asked before, and found to have what runs need: others are sent nothing."""
    return address in _known.get(client, {})


def process_of(client: Client, address: str) -> tuple[str, str] | None:
    """Return which start of a worker was asked last, and the name of its process; None for one that was not asked."""
    known = _known.get(client, {}).get(address)
    return None if known is None else (known[0], known[1]["process"])


def start_of(facts: WorkerFacts) -> str:
    """Return what tells one start of a worker from others at the same address."""
    return facts.get("local_directory", "")
