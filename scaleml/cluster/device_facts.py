"""Device facts: which GPUs the workers see, asked once a worker, and only of those that have CuPy."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import Final

from distributed import Client

from scaleml.cluster import calls
from scaleml.cluster.errors import StartFailed
from scaleml.cluster.host_facts import HostFacts
from scaleml.cluster.installation import IMPORTING, there
from scaleml.devices import VisibleGpus, visible_gpus, visible_gpus_of

_known: Final[weakref.WeakKeyDictionary[Client, dict[str, dict[str, tuple[HostFacts, VisibleGpus]]]]] = (
    weakref.WeakKeyDictionary()
)
"""By client, framework and address: what the worker's process was, and what it sees."""


def gpus_of(
    client: Client, hosts: Mapping[str, HostFacts], framework: str, addresses: Sequence[str]
) -> dict[str, VisibleGpus]:
    """Return what GPUs each worker sees.

    Parameters
    ----------
    client : Client
        The cluster.
    hosts : mapping
        Facts of the workers, as they were just asked.
    framework : str
        Of the model, which has to find them, too: see `scaleml.models.on_devices.Foreign`; "" for none.
    addresses : sequence of str
        Of workers.

    Raises
    ------
    StartFailed
        When a worker does not answer.
    """
    known = _known.setdefault(client, {}).setdefault(framework, {})
    asked = [address for address in dict.fromkeys(addresses) if hosts[address]["gpu_library"]]
    unknown = [address for address in asked if address not in known or known[address][0] != hosts[address]]
    if unknown:

        async def ask(address: str) -> VisibleGpus:
            if framework:
                return await calls.on_worker(client, address, there(visible_gpus_of), framework)
            return await calls.on_worker(client, address, there(visible_gpus))

        for address, answer in calls.ask_each(client, IMPORTING, ask, unknown).items():
            if isinstance(answer, BaseException):
                raise StartFailed(
                    f"worker {address} does not say which GPUs it sees ({type(answer).__name__}: {answer}); device='cpu' does not ask"
                ) from answer
            known[address] = hosts[address], answer
    none: VisibleGpus = {"library": "", "error": "CuPy is not installed", "gpus": [], "nccl": False}
    return {address: known[address][1] if address in asked else none for address in addresses}
