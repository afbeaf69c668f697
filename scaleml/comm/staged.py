"""Staging through the host: a communicator of GPU arrays whose ranks share a GPU, or have none.

What is to be sent is copied into the processor's memory, goes over the links there, and what came is copied back. Where the array is
one of `buffer`, or a slice of one, that memory is the one that the ranks of a host share, so that nothing is copied once more. It
is pinned. Arrays of the processor's memory go as if there were no GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, TypeVar, final

import numpy as np
from numpy.typing import DTypeLike

from scaleml.arrays import Array
from scaleml.comm.communicator import ANY, Communicator, Data, Handle, Message
from scaleml.comm.over_links import OverLinks
from scaleml.devices import Device

Result = TypeVar("Result")


@final
class StagedCommunicator(OverLinks):
    """Ranks of which this one has its arrays on a GPU. See `Communicator`.

    It makes the calls of `links` that a rank without a GPU would make, so that some ranks may have one and others not.

    Parameters
    ----------
    links : Communicator
        Of arrays in the processor's memory.
    device : Device
        Where the other arrays lie.
    """

    def __init__(self, links: Communicator, device: Device) -> None:
        super().__init__(links)
        self._device = device
        self._buffers: list[tuple[Array, Array]] = []
        self._places: dict[tuple[int, int], Array] = {}
        self._scratch = np.empty(0, np.uint8)
        self._subsets: dict[tuple[int, ...], StagedCommunicator] = {}

    # --- collectives ----------------------------------------------------------------------------------------------

    def allreduce(self, x: Array, topology: str = "direct") -> None:
        host = self._down(x)
        self.links.allreduce(host, topology)
        self._up(x, host)

    def allreduce_start(self, x: Array, topology: str = "direct") -> Handle[None]:
        host = self._down(x, is_kept=True)
        return _Raised(self.links.allreduce_start(host, topology), lambda _: self._up(x, host))

    def reduce_scatter(self, x: Array) -> Array:
        host = self._down(x)
        self.links.reduce_scatter(host)
        return self._own_part(x, host)

    def reduce_scatter_start(self, x: Array) -> Handle[Array]:
        host = self._down(x, is_kept=True)
        return _Raised(self.links.reduce_scatter_start(host), lambda _: self._own_part(x, host))

    def allgather(self, x: Array) -> Array:
        return self._like(x, self.links.allgather(self._down(x)))

    def allgather_start(self, x: Array) -> Handle[Array]:
        return _Raised(self.links.allgather_start(self._down(x, is_kept=True)), lambda rows: self._like(x, rows))

    def reduce(self, x: Array, root: int = 0) -> None:
        host = self._down(x)
        self.links.reduce(host, root)
        if self.rank == root:
            self._up(x, host)

    def broadcast(self, x: Array, root: int = 0) -> None:
        host = self._down(x) if self.rank == root else self._place(x)
        self.links.broadcast(host, root)
        if self.rank != root:
            self._up(x, host)

    def send_receive(
        self,
        outgoing: Sequence[Array],
        dest: int,
        incoming: Sequence[Array],
        source: int,
        *,
        added: int = 0,
        ahead: int | None = None,
    ) -> None:
        """See `Collectives.send_receive`; blocks of a GPU are of no topology of the links, so none of them may depend on another."""
        out = [self._down(x, is_kept=True) for x in outgoing]
        there = [self._down(x, is_kept=True) if place < added else self._place(x) for place, x in enumerate(incoming)]
        self.links.send_receive(out, dest, there, source, added=added, ahead=ahead)
        for x, host in zip(incoming, there, strict=True):
            self._up(x, host)

    # --- messages -------------------------------------------------------------------------------------------------

    def send(self, x: Data, dest: int, tag: int = 0, sequence: int = 0, codec: int = 0) -> None:
        self.links.send(self._sent(x), dest, tag, sequence, codec)

    def send_start(self, x: Data, dest: int, tag: int = 0, sequence: int = 0, codec: int = 0) -> Handle[None]:
        return self.links.send_start(self._sent(x, is_kept=True), dest, tag, sequence, codec)

    def recv(self, source: int = ANY, tag: int = 0, out: Array | None = None, view: bool = False) -> Message:
        """See `Communicator.recv`; without `out` the array is one of the processor's memory."""
        if out is None or type(out) is np.ndarray:
            return self.links.recv(source, tag, out, view)
        host = self._place(out)
        message = self.links.recv(source, tag, host, view)
        self._up(out, host)
        return message._replace(payload=out)

    def recv_start(self, source: int = ANY, tag: int = 0, out: Array | None = None) -> Handle[Message]:
        if out is None or type(out) is np.ndarray:
            return self.links.recv_start(source, tag, out)
        place, host = out, self._place(out, is_kept=True)

        def finish(message: Message) -> Message:
            self._up(place, host)
            return message._replace(payload=place)

        return _Raised(self.links.recv_start(source, tag, host), finish)

    # --- memory, sub-communicators --------------------------------------------------------------------------------

    def buffer(self, n: int, dtype: DTypeLike = np.float32) -> Array:
        """Return `n` zeros on the GPU; collective. What is sent of them goes through memory that the ranks of the host share."""
        host = self.links.buffer(n, dtype)
        there: Array = self._device.xp.zeros(n, dtype)
        if n:
            self._device.pin(host)
            self._buffers.append((there, host))
        return there

    def subset(self, ranks: Sequence[int]) -> StagedCommunicator:
        chosen = tuple(ranks)
        if chosen not in self._subsets:
            self._subsets[chosen] = self._around(self.links.subset(ranks))
        return self._subsets[chosen]

    def split(self, color: int | None, key: int = 0) -> StagedCommunicator | None:
        links = self.links.split(color, key)
        return None if links is None else self._around(links)

    def _around(self, links: Communicator) -> StagedCommunicator:
        made = StagedCommunicator(links, self._device)
        made._buffers, made._places = self._buffers, self._places
        return made

    # --- staging --------------------------------------------------------------------------------------------------

    def _down(self, x: Array, is_kept: bool = False) -> Array:
        """Return the values of `x` in the processor's memory."""
        if type(x) is np.ndarray:
            return x
        host = self._place(x, is_kept)
        begin = self._now()
        x.get(out=host)  # type: ignore[attr-defined]  # CuPy's
        self.meter.comm += self._now() - begin
        return host

    def _up(self, x: Array, host: Array) -> None:
        """Bring values back: queued, for the pinned memory is next written to after a copy into it, which waits for this one."""
        if x is not host:
            begin = self._now()
            x.set(host)  # type: ignore[attr-defined]
            self.meter.comm += self._now() - begin

    def _own_part(self, x: Array, host: Array) -> Array:
        start, stop = self.part(self.rank, x.size)
        if x is not host:
            self._up(x[start:stop], host[start:stop])
        return x[start:stop]

    def _like(self, x: Array, found: Array) -> Array:
        return found if type(x) is np.ndarray else self._device.put(found)

    def _sent(self, x: Data, is_kept: bool = False) -> Data:
        return x if isinstance(x, bytes | bytearray | memoryview) else self._down(x, is_kept)

    def _place(self, x: Array, is_kept: bool = False) -> Array:
        """Return memory for the values of `x`: its own, or scratch, until the next call; with `is_kept` its own in any case."""
        if type(x) is np.ndarray:
            return x
        first, nbytes = _address(x), x.nbytes
        found = self._places.get((first, nbytes))
        if found is None:
            for there, host in self._buffers:
                start = first - _address(there)
                if start >= 0 and start + nbytes <= there.nbytes:
                    found = self._places[first, nbytes] = host.view(np.uint8)[start : start + nbytes]
                    break
        if found is None and is_kept:
            found = np.empty(nbytes, np.uint8)
        elif found is None:
            if len(self._scratch) < nbytes:
                self._scratch = np.empty(nbytes, np.uint8)
                self._device.pin(self._scratch)
            found = self._scratch[:nbytes]
        return found.view(x.dtype).reshape(x.shape)


def _address(x: Any) -> int:
    return int(x.data.ptr)


@final
class _Raised(Generic[Result]):
    """What was started on the links, and what is to be done with what comes of it, once."""

    def __init__(self, below: Handle[Any], finish: Callable[[Any], Result]) -> None:
        self._below: Final = below
        self._finish: Callable[[Any], Result] | None = finish
        self._result: Any = None

    def done(self) -> bool:
        return self._below.done()

    def wait(self) -> Result:
        found = self._below.wait()
        if self._finish is not None:
            self._result, self._finish = self._finish(found), None
        result: Result = self._result
        return result


_: type[Communicator] = StagedCommunicator
