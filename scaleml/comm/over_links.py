"""What a communicator of GPU arrays leaves to the links: who is who, bytes, announcements, shared memory, how waits end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Self

import numpy as np
from numpy.typing import DTypeLike

from scaleml.arrays import Array
from scaleml.comm.communicator import Communicator, LinkEmulation, Lock


class OverLinks:
    """A base: a communicator around another one, whose rank, meter and stamps it has.

    Parameters
    ----------
    links : Communicator
        Between the same ranks, of arrays in the processor's memory.
    """

    def __init__(self, links: Communicator) -> None:
        self.links: Final = links
        self.rank: Final = links.rank
        self.size: Final = links.size
        self.ranks: Final = links.ranks
        self.hosts: Final = links.hosts
        self.stamps: Final = links.stamps
        self.meter: Final = links.meter
        self.clock: Final = links.clock
        self.timeout: Final = links.timeout
        self._now = links.clock.now

    @property
    def step(self) -> int:
        """The stamps'."""
        return self.stamps.step

    @step.setter
    def step(self, step: int) -> None:
        self.stamps.step = step

    @property
    def compute_seconds(self) -> float:
        """The stamps'."""
        return self.stamps.compute_seconds

    @compute_seconds.setter
    def compute_seconds(self, seconds: float) -> None:
        self.stamps.compute_seconds = seconds

    @property
    def control(self) -> int:
        """The stamps'."""
        return self.links.control

    @control.setter
    def control(self, control: int) -> None:
        self.links.control = control

    def part(self, rank: int, n: int) -> tuple[int, int]:
        return self.links.part(rank, n)

    def allgather_bytes(self, payload: bytes) -> list[bytes]:
        return self.links.allgather_bytes(payload)

    def barrier(self) -> None:
        self.links.barrier()

    def exchange(self, outgoing: Sequence[Array], places: Sequence[Array], items: int, codec: int = 0) -> None:
        """See `Communicator.exchange`: bytes lie in the processor's memory."""
        self.links.exchange(outgoing, places, items, codec)

    def poll(self, tag: int = 0, seconds: float = 0.0) -> bool:
        return self.links.poll(tag, seconds)

    def shared_vector(self, n: int, dtype: DTypeLike = np.float32) -> Array | None:
        """See `Communicator.shared_vector`: in the processor's memory."""
        return self.links.shared_vector(n, dtype)

    def locked_memory(self, nbytes: int) -> tuple[Array, Lock] | None:
        return self.links.locked_memory(nbytes)

    def announce(self, number: int, payload: bytes) -> None:
        self.links.announce(number, payload)

    def await_announcement(self, number: int, forever: bool = False) -> bytes:
        return self.links.await_announcement(number, forever)

    def raise_control(self, control: int) -> None:
        self.links.raise_control(control)

    def check(self) -> None:
        self.links.check()

    def stalled(self, peer: int, waiting_for: object, seconds: float) -> None:
        self.links.stalled(peer, waiting_for, seconds)

    def emulation(self) -> LinkEmulation:
        return self.links.emulation()

    @property
    def is_emulated(self) -> bool:
        return self.links.is_emulated

    def abort(self, reason: str) -> None:
        self.links.abort(reason)

    def close(self) -> None:
        self.links.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
