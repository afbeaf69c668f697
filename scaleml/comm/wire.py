"""Bad links: frames that leave later, slower or altered. A link without such trouble never comes here.

While there is some, a link's frames go into a queue, and a thread sends each when its time has come: neither the sender nor
another link waits for it. Every frame says how long it was held back, so that its receiver knows waiting for the network from
waiting for a slow peer.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from time import perf_counter as clock
from typing import TYPE_CHECKING, Any, final

from .errors import PeerLost
from .frame import HEADER, held_back, with_sum
from .link import Link, LinkClosed

if TYPE_CHECKING:
    from .mesh import Mesh


@final
class Pace:
    """So many bytes a second, for one link or for several together."""

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
class Wire:
    """What stands between a link and its socket while there is trouble.

    Attributes
    ----------
    latency : float
        Seconds that every frame is held back.
    pace : Pace or None
        How fast bytes go.
    shared : int
        Bytes given through shared memory, to be paid for by the next frame, which is about them.
    corrupt : str
        The part of the next frame that is to be hit; empty for none.
    """

    def __init__(self, link: Link) -> None:
        self.latency = 0.0
        self.pace: Pace | None = None
        self.shared = 0
        self.corrupt = ""
        self._link = link
        self._direct = link.send
        self._frames: deque[tuple[float, float, bytes, bytes]] = deque()
        self._sending = False
        self._ended = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        link.send = self.send  # type: ignore[method-assign]  # only this link's, and only from now on

    def send(self, header: bytes | memoryview, payload: Any) -> int:
        """Take a frame as `Link.send` does: all of it, unless it can go directly."""
        now = clock()
        size = len(header) + (memoryview(payload).nbytes if len(payload) else 0)
        due = now if self.pace is None else self.pace.book(now, size + self.shared)
        due += self.latency
        self.shared = 0
        with self._changed:
            if self._ended:
                raise LinkClosed
            if due <= now and not (self.corrupt or self._frames or self._sending):
                return self._direct(header, payload)
            self._link.meter.bytes_sent += size
            self._frames.append((now, due, bytes(header), bytes(payload)))
            if self._thread is None:
                name = f"scaleml-wire-{self._link.rank}-{self._link.peer}"
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
            header = held_back(header, seconds)
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
class Wires:
    """The trouble on all links of a rank; the progress thread's links have the same as the calling thread's."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self._wires: dict[int, list[Wire]] = {}

    def shape(self, peer: int, latency: float, pace: Pace | None) -> None:
        """Hold back what goes to `peer`, from now on."""
        if latency or pace is not None or peer in self._wires:
            for wire in self._of(peer):
                wire.latency, wire.pace = latency, pace

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
        mesh = self._mesh
        for channel in (mesh.channel, mesh.progress.channel):
            channel.link(peer).wake()
        raise PeerLost(
            f"rank {mesh.rank} lost rank {peer} at step {mesh.step}: their link was cut",
            rank=mesh.rank, peer=peer, step=mesh.step,
        )  # fmt: skip

    def charge(self, peers: Iterable[int], nbytes: int) -> None:
        """Have the next frame to each of `peers` pay for bytes that go to them through shared memory."""
        for peer in peers:
            for wire in self._wires.get(peer, ())[:1]:
                wire.shared += nbytes

    def stop(self) -> None:
        """From any thread: send nothing more; the links must be woken."""
        for wires in tuple(self._wires.values()):
            for wire in wires:
                wire.stop()

    def close(self, seconds: float) -> None:
        """End all, but wait at most so long for what is under way; 0 for not at all."""
        until = clock() + seconds
        for wires in self._wires.values():
            for wire in wires:
                wire.close(max(0.0, until - clock()))

    def _of(self, peer: int) -> list[Wire]:
        if peer not in self._wires:
            mesh = self._mesh
            self._wires[peer] = [Wire(channel.link(peer)) for channel in (mesh.channel, mesh.progress.channel)]
        return self._wires[peer]
