"""The backend of a program: what starts another framework's own communication between the ranks, ends it, and can break it off."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from scaleml.comm import Communicator

BACKENDS: Final = ("gloo", "nccl", "cpu:gloo,cuda:nccl", "torchrun", "jax")
"""By their names: PyTorch's process groups, only what torchrun sets, and JAX's processes."""


@dataclass(frozen=True)
class Place:
    """Where a rank is, for backends that make connections of their own.

    Parameters
    ----------
    links : Communicator
        Of the ranks.
    host : str
        The address by which the others reach this rank's host.
    port_range : tuple of int or None
        The first and last port that may be listened on, where a backend lets us choose.
    timeout : float
        Seconds for all to meet.
    """

    links: Communicator
    host: str
    port_range: tuple[int, int] | None
    timeout: float


class Backend(Protocol):
    """Another framework's communication, from before the function is called until after it."""

    def start(self) -> None:
        """Meet the other ranks; collective."""

    def interrupt(self) -> None:
        """From any thread, at any time: end whatever the rank waits for there."""

    def leave(self, failed: bool) -> None:
        """Give everything back, after the function: collective, unless a rank has failed; others may be in the middle of something then."""

    def is_echo(self, error: BaseException) -> bool:
        """Whether an error only says that another rank has gone."""


def packages_of(backend: str | None) -> list[str]:
    """Return which packages the workers need for a backend.

    Examples
    --------
    >>> packages_of("gloo"), packages_of(None)
    (['torch'], [])
    """
    return [] if backend is None else ["jax"] if backend == "jax" else ["torch"]
