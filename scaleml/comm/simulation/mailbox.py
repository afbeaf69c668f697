"""The mailbox of one simulated communicator: messages and announcements, in the order of virtual time."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Final, final

import numpy as np

from scaleml.arrays import Array
from scaleml.comm.communicator import ANY, Data, Message
from scaleml.comm.errors import CommError, Mismatch
from scaleml.comm.simulation.network import Network
from scaleml.comm.transport.frame import flat

BLOCKS: Final = -1
"""The tag of the blocks of paired exchanges: no message has it."""


@final
class Mailbox:
    """What one rank sends to, and gets from, the other members.

    Parameters
    ----------
    root : int
        The rank, by its root number.
    ranks : tuple of int
        The members.
    number : int
        Which communicator it is: its messages keep apart from those of others.
    """

    def __init__(self, network: Network, root: int, ranks: tuple[int, ...], number: int) -> None:
        self._network = network
        self._root = root
        self._rank = ranks.index(root)
        self._ranks = ranks
        self._number = number
        self._context = network.tasks[root].context
        self._clock = network.tasks[root].clock
        self._meter = self._context.meter
        self._mourned: set[int] = set()

    def send(self, x: Data, dest: int, tag: int, sequence: int, codec: int) -> None:
        """Send a copy of `x`."""
        context, peer = self._context, self._other(dest, "dest")
        context.check()
        payload = flat(x, self._rank).copy() if isinstance(x, np.ndarray) else bytes(x)
        nbytes = payload.nbytes if isinstance(payload, np.ndarray) else len(payload)
        stamps = context.step, context.control, context.compute_seconds
        message = Message(self._rank, tag, sequence, *stamps, codec, payload)
        self._network.send(self._root, peer, self._number, nbytes, message)

    def receive(self, source: int, tag: int, out: Array | None) -> Message:
        """Wait for a message, and take it."""
        network, root, meter = self._network, self._root, self._meter
        self._context.check()
        sources = self._sources(source)
        if not sources:
            raise ValueError("a group of one rank receives no messages")
        what, begun = f"a message with tag {tag} from rank {source if source >= 0 else 'any'}", self._clock.now()

        def ready() -> float:
            first = network.first(root, self._number, tag, sources)
            return min(inf if first is None else first.arrival, self._departure(sources))

        network.wait(root, ready, what, sources[0] if len(sources) == 1 else ANY)
        now, first = self._clock.now(), network.first(root, self._number, tag, sources)
        if first is None or first.arrival > now:
            gone = [peer for peer in sources if network.departure(peer, root) <= now]
            peer = next((peer for peer in gone if peer not in self._mourned), gone[0])
            self._mourned.add(peer)
            meter.comm += now - begun
            raise self._context.lost(peer, what)
        if out is not None:
            _check_out(first.message, out, self._root, first.source)
        waited = min(max(first.sent - begun, 0.0), now - begun)
        meter.wait += waited
        meter.waited[first.source] += waited
        meter.comm += now - begun - waited
        message = network.take(root, first)
        if out is not None:
            out.reshape(-1).view(np.uint8)[:] = np.frombuffer(message.payload, np.uint8)
            return message._replace(payload=out)
        return message

    def receive_block(self, source: int, place: Array, add: bool) -> None:
        """Wait for a block of a paired exchange; put it into its place, or add it to what is there.

        Raises
        ------
        Mismatch
            If it has another length or dtype.
        """
        block = self.receive(source, BLOCKS, None).array
        if (block.size, block.dtype) != (place.size, place.dtype):
            raise Mismatch(
                f"rank {self._root} expected {place.nbytes} bytes ({place.dtype}) from rank {self._ranks[source]}, which sent "
                f"{block.nbytes} ({block.dtype}): all ranks must use the same version and settings",
                rank=self._root, peer=self._ranks[source], step=self._context.step,
            )  # fmt: skip
        if not add:
            place[:] = block
            return
        place += block
        seconds = block.nbytes / self._network.costs.summing
        if seconds:
            self._clock.sleep(seconds)
            self._meter.comm += seconds

    def is_here(self, source: int, tag: int, seconds: float) -> bool:
        """Whether a message is here, or comes within so many seconds."""
        network, root, sources = self._network, self._root, self._sources(source)
        self._context.check()
        first = network.first(root, self._number, tag, sources)
        if first is None or first.arrival > self._clock.now():
            until = self._clock.now() + max(seconds, network.costs.look)

            def ready() -> float:
                first = network.first(root, self._number, tag, sources)
                return until if first is None else min(until, first.arrival)

            network.wait(root, ready, f"a message with tag {tag}", patient=True)
            first = network.first(root, self._number, tag, sources)
        return first is not None and first.arrival <= self._clock.now()

    def _departure(self, sources: Sequence[int]) -> float:
        """Return when somebody left of whom this rank has not been told, or when nobody is left."""
        network = self._network
        if all(peer in network.left for peer in sources):
            return network.first_departure(sources, self._root)
        return network.first_departure([peer for peer in sources if peer not in self._mourned], self._root)

    def _sources(self, source: int) -> list[int]:
        if source == ANY:
            return [peer for peer in self._ranks if peer != self._root]
        return [self._other(source, "source")]

    def _other(self, rank: int, name: str) -> int:
        if not 0 <= rank < len(self._ranks) or rank == self._rank:
            raise ValueError(
                f"{name}={rank} must be another rank of this group: 0 to {len(self._ranks) - 1}, not {self._rank}"
            )
        return self._ranks[rank]

    def announce(self, number: int, payload: bytes) -> None:
        """Send rank 0's announcement to all."""
        context = self._context
        assert context.rank == 0, "only root rank 0 announces"
        context.check()
        context.announcements[number] = bytes(payload)
        context.raise_control(number)
        self._network.announce(number, bytes(payload))

    def await_announcement(self, number: int, forever: bool) -> bytes:
        """Wait for an announcement."""
        context, network, root = self._context, self._network, self._root
        context.check()
        begun, what = self._clock.now(), f"announcement {number}"
        network.read_news(root)
        if number not in context.announcements and root == 0:
            raise CommError(f"rank 0 has not made announcement {number}", rank=0, step=context.step)

        def ready() -> float:
            arrivals = (news.arrival for news in network.news[root] if news.number == number)
            return min(next(arrivals, inf), network.departure(0, root))

        if number not in context.announcements:
            network.wait(root, ready, what, 0, patient=forever)
        self._meter.comm += self._clock.now() - begun
        if number not in context.announcements:
            raise context.lost(0, what)
        return context.announcements[number]


def _check_out(message: Message, out: Array, rank: int, peer: int) -> None:
    payload = message.payload
    nbytes, kind = (len(payload), "bytes") if isinstance(payload, bytes) else (payload.nbytes, payload.dtype)
    if out.nbytes != nbytes or not out.flags.c_contiguous or (kind != "bytes" and kind != out.dtype):
        raise ValueError(
            f"rank {rank} cannot receive {nbytes} bytes ({kind}) from rank {peer} into an array of "
            f"{out.nbytes} bytes ({out.dtype}): `out` must be contiguous and have the message's dtype and size"
        )
