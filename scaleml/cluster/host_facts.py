"""What is known of the workers' hosts: asked once a worker."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any, Final

from distributed import Client

from scaleml.cluster import calls
from scaleml.cluster.endpoint import host_facts
from scaleml.cluster.errors import StartFailed

_known: Final[weakref.WeakKeyDictionary[Client, dict[str, dict[str, Any]]]] = weakref.WeakKeyDictionary()


def facts_of(client: Client, addresses: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return boot id, versions and cores of each worker's host.

    Raises
    ------
    StartFailed
        When a worker cannot import scaleml, or has another version of it or of NumPy.
    """
    known = _known.setdefault(client, {})
    unknown = [address for address in addresses if address not in known]
    if unknown:
        answers = calls.on_workers(client, 30.0, host_facts, workers=unknown, on_error="return")
        for address in unknown:
            known[address] = _checked(address, answers.get(address))
    return {address: known[address] for address in addresses}


def _checked(address: str, answer: Any) -> dict[str, Any]:
    if "ModuleNotFoundError" in repr(answer):  # Dask wraps what happens before the call
        raise StartFailed(
            f"worker {address} cannot import scaleml or what it needs ({answer}): install scaleml there, in the same version as here"
        )
    if not isinstance(answer, dict):
        raise StartFailed(f"worker {address} does not answer: {answer or 'it left the cluster'}")
    here = host_facts()
    for what in ("scaleml", "numpy"):
        if answer[what] != here[what]:
            raise StartFailed(
                f"worker {address} has {what} {answer[what]}, this process {here[what]}: install the same version on both"
            )
    return answer
