"""Link emulation: frames that leave later, slower or altered. A link that is not emulated never comes here.

While it is, a link's frames go into a queue, and a thread sends each when its time has come: neither the sender nor
another link waits for it. Every frame says how long it was held back, so that its receiver knows waiting for the network from
waiting for a slow peer.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import final

from scaleml.clock import WALL
from scaleml.comm.communicator import RateLimiter
from scaleml.comm.errors import PeerLost
from scaleml.comm.transport.context import RankContext
from scaleml.comm.transport.frame import HEADER, Payload, with_delay, with_sum
from scaleml.comm.transport.link import Link, LinkClosed

clock = WALL.now


@final
class TokenBucket:
    """A rate limiter: so many bytes a second, for one link or for several together, without a burst."""

    def __init__(self, bytes_per_second: float) -> None:
        self._seconds_a_byte = 1.0 / bytes_per_second
        self._free = 0.0
        self._lock = threading.Lock()

    def book(self, now: float, nbytes: int) -> float:
        """Return when so many bytes, which come now, have gone."""
        with self._lock:
            self._free = max(self._free, now) + nbytes * self._seconds_a_byte
            return self._free


@final
class EmulatedLink:
    """What stands between a link and its socket while it is bad.

    Attributes
    ----------
    latency : float
        Seconds that every frame is held back.
    rate : RateLimiter or None
        How fast bytes go.
    charged : int
        Bytes given through shared memory, to be paid for by the next frame, which is about them.
    corrupt : str
        The part of the next frame that is to be hit; empty for none.
    """

    def __init__(self, link: Link) -> None:
        self.latency = 0.0
        self.rate: RateLimiter | None = None
        self.charged = 0
        self.corrupt = ""
        self._link = link
        self._direct = link.send
        self._frames: deque[tuple[float, float, bytes, bytes]] = deque()
        self._sending = False
        self._ended = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        link.send = self.send  # type: ignore[method-assign]  # only this link's, and only from now on

    def send(self, header: bytes | memoryview, payload: Payload) -> int:
        """Take a frame as `Link.send` does: all of it, unless it can go directly."""
        now = clock()
        size = len(header) + (memoryview(payload).nbytes if len(payload) else 0)
        due = now if self.rate is None else self.rate.book(now, size + self.charged)
        due += self.latency
        self.charged = 0
        with self._changed:
            if self._ended:
                raise LinkClosed
            if due <= now and not (self.corrupt or self._frames or self._sending):
                return self._direct(header, payload)
            self._link.meter.bytes_sent += size
            self._frames.append((now, due, bytes(header), bytes(payload)))
            if self._thread is None:
                name = f"scaleml-link-{self._link.rank}-{self._link.peer}"
                self._thread = threading.Thread(target=self._work, name=name, daemon=True)
                self._thread.start()
            self._changed.notify_all()
        return size

    def close(self, seconds: float) -> None:
        """Wait at most so long for what is under way, then end."""
        with self._changed:
            drained = self._changed.wait_for(lambda: self._ended or not (self._frames or self._sending), seconds)
        self.stop()
        if not drained:
            self._link.wake()
        if self._thread is not None:
            self._thread.join()

    def stop(self) -> None:
        """From any thread: send nothing more; whatever writes now must be woken."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._ended and (not self._frames or self._frames[0][1] > clock()):
                    self._changed.wait(self._frames[0][1] - clock() if self._frames else None)
                if self._ended:
                    return
                came, _, header, payload = self._frames.popleft()
                self._sending = True
            try:
                self._forward(clock() - came, header, payload)
            except LinkClosed:  # whoever reads this link will be told
                self.stop()
            with self._changed:
                self._sending = False
                self._changed.notify_all()

    def _forward(self, seconds: float, header: bytes, payload: bytes) -> None:
        if len(header) == HEADER:  # else it is the rest of a frame that was under way when the trouble came
            header = with_delay(header, seconds)
            if self.corrupt:
                part, self.corrupt = self.corrupt, ""
                if self._link.spoil():
                    return
                if part == "payload" and payload:
                    header = with_sum(header, payload)  # within a host there is none: no wire is there
                    payload = payload[:-1] + bytes([payload[-1] ^ 1])
                else:
                    header = header[:-1] + bytes([header[-1] ^ 1])
        self._link.write(header)
        if payload:
            self._link.write(payload)


@final
class LinkEmulator:
    """The bad links of a rank; those of its progress thread are as bad as those of the calling thread.

    Parameters
    ----------
    context : RankContext
        Whose links they are.
    links_to : callable
        Returns the links to a peer, the calling thread's first.
    """

    def __init__(self, context: RankContext, links_to: Callable[[int], Sequence[Link]]) -> None:
        self._context = context
        self._links_to = links_to
        self._emulated: dict[int, list[EmulatedLink]] = {}

    def shape(self, peer: int, latency: float, rate: RateLimiter | None) -> None:
        """Hold back what goes to `peer`, from now on."""
        if latency or rate is not None or peer in self._emulated:
            for link in self._of(peer):
                link.latency, link.rate = latency, rate

    def corrupt(self, peer: int, part: str) -> None:
        """Flip a bit of the next frame to `peer`, in its "payload" or its "header"."""
        self._of(peer)[0].corrupt = part

    def drop(self, peer: int) -> None:
        """Close the links to `peer`.

        Raises
        ------
        PeerLost
            Of this rank: it has lost the peer, too.
        """
        context = self._context
        for link in self._links_to(peer):
            link.wake()
        raise PeerLost(
            f"rank {context.rank} lost rank {peer} at step {context.step}: their link was cut",
            rank=context.rank, peer=peer, step=context.step,
        )  # fmt: skip

    def charge(self, peers: Iterable[int], nbytes: int) -> None:
        """Have the next frame to each of `peers` pay for bytes that go to them through shared memory."""
        for peer in peers:
            for link in self._emulated.get(peer, ())[:1]:
                link.charged += nbytes

    def stop(self) -> None:
        """From any thread: send nothing more; the links must be woken."""
        for links in tuple(self._emulated.values()):
            for link in links:
                link.stop()

    def close(self, seconds: float) -> None:
        """End all, but wait at most so long for what is under way; 0 for not at all."""
        until = clock() + seconds
        for links in self._emulated.values():
            for link in links:
                link.close(max(0.0, until - clock()))

    def _of(self, peer: int) -> list[EmulatedLink]:
        if peer not in self._emulated:
            self._emulated[peer] = [EmulatedLink(link) for link in self._links_to(peer)]
        return self._emulated[peer]
