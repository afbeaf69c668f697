"""The full mesh of one rank: its links to all others, its shared memory, its progress thread, and their end."""

from __future__ import annotations

from collections.abc import Iterable
from typing import final

from scaleml.comm.communicator import OnStall
from scaleml.comm.emulation import LinkEmulator
from scaleml.comm.transport.channel import Channel
from scaleml.comm.transport.context import RankContext
from scaleml.comm.transport.link import Link
from scaleml.comm.transport.memory import Memory
from scaleml.comm.transport.progress_thread import ProgressThread
from scaleml.comm.transport.segment_table import SegmentTable


@final
class Mesh:
    """What all communicators of one rank have in common.

    Attributes
    ----------
    context : RankContext
        Who it is.
    channel : Channel
        The links of the thread that calls.
    progress : ProgressThread
        Collectives in the background, on links of their own.
    segments : SegmentTable
        Its shared memory.
    hosts : tuple of int
        The number of each root rank's host; each its own until ranks have found out.
    memories : list of Memory
        Those of all communicators.
    emulator : LinkEmulator or None
        Bad links, where there are any.
    """

    def __init__(self, context: RankContext, channel: Channel, background: Channel, scratch: str | None) -> None:
        self.context = context
        self.channel = channel
        # One link of a pair may be a Unix socket and the other not: headers say of both alike whether payloads have sums.
        channel.summed = background.summed = channel.summed or background.summed
        self.progress = ProgressThread(context, background)
        self.segments = SegmentTable(context, scratch)
        self.hosts = tuple(range(context.size))
        self.memories: list[Memory] = []
        self.emulator: LinkEmulator | None = None

    def links(self) -> list[Link]:
        """Return all links of this rank."""
        return [link for channel in (self.channel, self.progress.channel) for link in channel.links if link]

    def limit(self, timeout: float, on_stall: OnStall | None) -> None:
        """From now on, have every wait ask `on_stall` after `timeout` seconds."""
        self.context.timeout, self.context.on_stall = timeout, on_stall
        for link in self.links():
            link.set_timeout(timeout)

    def emulation(self) -> LinkEmulator:
        """Return this rank's bad links, to be made worse."""
        if self.emulator is None:
            self.emulator = LinkEmulator(
                self.context, lambda peer: [channel.link(peer) for channel in (self.channel, self.progress.channel)]
            )
        return self.emulator

    def charge(self, peers: Iterable[int], nbytes: int) -> None:
        """Have bad links to `peers` take their time for bytes that go there through shared memory."""
        if self.emulator is not None:
            self.emulator.charge(peers, nbytes)

    def abort(self, reason: str) -> None:
        """From any thread: every call that talks, now or later, raises `Aborted`."""
        self.context.abort(reason)
        if self.emulator is not None:
            self.emulator.stop()
        for link in self.links():
            link.wake()

    def close(self) -> None:
        """Close the links and forget the memory; can be called again."""
        if not self.context.close():
            return
        if self.emulator is not None:
            self.emulator.close(0.0 if self.context.reason is not None else self.context.timeout)
        for link in self.links():
            link.wake()
        self.progress.close()
        for link in self.links():
            link.close()
        for memory in self.memories:
            memory.clear()
        self.segments.close()
