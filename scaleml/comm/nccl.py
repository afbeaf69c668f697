"""NCCL: the collectives of ranks that have a GPU each, queued on their streams; all else goes over the links.

Nobody waits on the host: a collective is queued like a kernel, and its result is there for whatever is queued after it. So none of its
time shows in the meter. Whoever waits for the GPU (`scaleml.devices.Device.wait`) calls `NcclCommunicator.check` meanwhile, which sees a
lost peer by its links; `NcclCommunicator.give_up` then ends the collective that the GPU is stuck in.

Sums have the same bits on all ranks. They are not those of the links, for NCCL adds in an order of its own.

References
----------
https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/api/colls.html
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final, final

import numpy as np
from numpy.typing import DTypeLike

from scaleml.arrays import Array
from scaleml.comm.communicator import ANY, Communicator, Data, Handle, Message
from scaleml.comm.errors import CommError
from scaleml.comm.over_links import OverLinks
from scaleml.comm.staged import StagedCommunicator
from scaleml.devices import Cuda

_LOOK: Final = 2e-3
"""Seconds between two looks whether all have joined."""
_NO_TAG: Final = 0xFFFF
"""Under which nobody sends: who looks for it sees whether links are closed."""


@final
class NcclCommunicator(OverLinks):
    """Ranks that have a GPU each. See `Communicator`; a topology that is named is NCCL's own choice here. Made by `join`.

    Parameters
    ----------
    staged : StagedCommunicator
        For messages of arrays.
    device : Cuda
        This rank's GPU.
    group : cupy.cuda.nccl.NcclCommunicator
        All ranks of `staged`.
    """

    def __init__(self, staged: StagedCommunicator, device: Cuda, group: Any) -> None:
        super().__init__(staged.links)
        self._staged = staged
        self._device = device
        self._group = group
        self._nccl = nccl = device.xp.cuda.nccl
        self._dtypes = {
            np.dtype(np.float32): nccl.NCCL_FLOAT32,
            np.dtype(np.float64): nccl.NCCL_FLOAT64,
            np.dtype(np.int32): nccl.NCCL_INT32,
            np.dtype(np.int64): nccl.NCCL_INT64,
            np.dtype(np.uint8): nccl.NCCL_UINT8,
        }
        self._side: Any = None
        self._subsets: dict[tuple[int, ...], NcclCommunicator] = {}

    # --- collectives ----------------------------------------------------------------------------------------------

    def allreduce(self, x: Array, topology: str = "direct") -> None:
        if type(x) is np.ndarray:
            self.links.allreduce(x, topology)
        else:
            self._allreduce(x, self._device.stream)

    def _allreduce(self, x: Array, stream: Any) -> None:
        at, count, dtype = self._place(x)
        self._group.allReduce(at, at, count, dtype, self._nccl.NCCL_SUM, stream.ptr)
        self._count(x.nbytes * (self.size - 1) // self.size * 2)

    def allreduce_start(self, x: Array, topology: str = "direct") -> Handle[None]:
        """See `Communicator.allreduce_start`: on a stream of its own, while the rank's goes on."""
        if type(x) is np.ndarray:
            return self.links.allreduce_start(x, topology)
        cuda = self._device.xp.cuda
        if self._side is None:
            self._side = cuda.Stream(non_blocking=True)
        ready, over = cuda.Event(disable_timing=True), cuda.Event(disable_timing=True)
        ready.record(self._device.stream)
        self._side.wait_event(ready)
        self._allreduce(x, self._side)
        over.record(self._side)
        return _Queued(over, lambda: self._device.stream.wait_event(over))

    def reduce_scatter(self, x: Array) -> Array:
        if type(x) is np.ndarray:
            return self.links.reduce_scatter(x)
        self._nccl.groupStart()
        for rank in range(self.size):
            start, stop = self.part(rank, x.size)
            self._reduce(x[start:stop], rank)
        self._nccl.groupEnd()
        start, stop = self.part(self.rank, x.size)
        return x[start:stop]

    def reduce_scatter_start(self, x: Array) -> Handle[Array]:
        return self.links.reduce_scatter_start(x) if type(x) is np.ndarray else _Done(self.reduce_scatter(x))

    def allgather(self, x: Array) -> Array:
        if type(x) is np.ndarray:
            return self.links.allgather(x)
        out: Array = self._device.xp.empty((self.size, x.size), x.dtype)
        at, count, dtype = self._place(x)
        self._group.allGather(at, self._place(out)[0], count, dtype, self._device.stream.ptr)
        self._count(x.nbytes * (self.size - 1))
        return out

    def allgather_start(self, x: Array) -> Handle[Array]:
        return self.links.allgather_start(x) if type(x) is np.ndarray else _Done(self.allgather(x))

    def reduce(self, x: Array, root: int = 0) -> None:
        if type(x) is np.ndarray:
            self.links.reduce(x, root)
        else:
            self._reduce(x, root)

    def _reduce(self, x: Array, root: int) -> None:
        at, count, dtype = self._place(x)
        self._group.reduce(at, at, count, dtype, self._nccl.NCCL_SUM, root, self._device.stream.ptr)
        self._count(x.nbytes)

    def broadcast(self, x: Array, root: int = 0) -> None:
        if type(x) is np.ndarray:
            self.links.broadcast(x, root)
            return
        at, count, dtype = self._place(x)
        self._group.broadcast(at, at, count, dtype, root, self._device.stream.ptr)
        self._count(x.nbytes)

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
        self._staged.send_receive(outgoing, dest, incoming, source, added=added, ahead=ahead)

    def _place(self, x: Any) -> tuple[int, int, int]:
        return x.data.ptr, x.size, self._dtypes[x.dtype]

    def _count(self, nbytes: int) -> None:
        self.meter.bytes_sent += nbytes
        self.meter.bytes_received += nbytes

    # --- messages -------------------------------------------------------------------------------------------------

    def send(self, x: Data, dest: int, tag: int = 0, sequence: int = 0, codec: int = 0) -> None:
        self._staged.send(x, dest, tag, sequence, codec)

    def send_start(self, x: Data, dest: int, tag: int = 0, sequence: int = 0, codec: int = 0) -> Handle[None]:
        return self._staged.send_start(x, dest, tag, sequence, codec)

    def recv(self, source: int = ANY, tag: int = 0, out: Array | None = None, view: bool = False) -> Message:
        return self._staged.recv(source, tag, out, view)

    def recv_start(self, source: int = ANY, tag: int = 0, out: Array | None = None) -> Handle[Message]:
        return self._staged.recv_start(source, tag, out)

    # --- memory, sub-communicators, how waits end -----------------------------------------------------------------

    def buffer(self, n: int, dtype: DTypeLike = np.float32) -> Array:
        """Return `n` zeros on the GPU; collective. Messages of them are copied."""
        self.links.barrier()
        zeros: Array = self._device.xp.zeros(n, dtype)
        return zeros

    def subset(self, ranks: Sequence[int]) -> NcclCommunicator:
        """See `Collectives.subset`; the first time all these ranks have to come to it."""
        chosen = tuple(ranks)
        if chosen not in self._subsets:
            self._subsets[chosen] = join(self._staged.subset(ranks), self._device)
        return self._subsets[chosen]

    def split(self, color: int | None, key: int = 0) -> NcclCommunicator | None:
        staged = self._staged.split(color, key)
        return None if staged is None else join(staged, self._device)

    def check(self) -> None:
        """Raise if this rank was aborted, or a peer was lost: then what this rank's GPU waits for may never come."""
        self.links.check()
        self.links.poll(_NO_TAG)

    def give_up(self) -> None:
        """End what is queued, of whatever it waits for; no collective comes after it."""
        for subset in self._subsets.values():
            subset.give_up()
        if self._group is not None:
            self._group.abort()
            self._group = None

    def abort(self, reason: str) -> None:
        self.links.abort(reason)  # the rank's own thread ends what is queued, when it looks

    def close(self) -> None:
        self.give_up()
        self.links.close()


@final
class _Queued:
    """A collective on another stream; who waits for it has the rank's own stream wait, not the host."""

    def __init__(self, over: Any, follow: Callable[[], None]) -> None:
        self._over, self._follow = over, follow

    def done(self) -> bool:
        return bool(self._over.done)

    def wait(self) -> None:
        self._follow()


@final
class _Done:
    """What was queued at once."""

    def __init__(self, result: Array) -> None:
        self._result = result

    def done(self) -> bool:
        return True

    def wait(self) -> Array:
        return self._result


def join(staged: StagedCommunicator, device: Cuda) -> NcclCommunicator:
    """Return the NCCL group of all ranks of `staged`, each with a GPU of its own; collective.

    NCCL itself waits for ever for who does not come: so a thread of its own does that, while this one watches the links.
    """
    nccl, links = device.xp.cuda.nccl, staged.links
    identity = nccl.get_unique_id() if links.rank == 0 else ()
    told = links.allgather_bytes(struct.pack(f"<{len(identity)}q", *identity))[0]
    identity = struct.unpack(f"<{len(told) // 8}q", told)
    found: list[Any] = []

    def enter() -> None:
        try:
            device.xp.cuda.Device(device.gpu.index).use()
            found.append(nccl.NcclCommunicator(links.size, identity, links.rank))
        except Exception as error:  # noqa: BLE001  raised by the rank's thread
            found.append(error)

    thread = threading.Thread(target=enter, name=f"scaleml-nccl-{links.rank}", daemon=True)
    thread.start()
    begin = links.clock.now()
    while thread.is_alive():
        thread.join(_LOOK)
        links.check()
        links.poll(_NO_TAG)
        if links.clock.now() - begin > links.timeout:
            links.stalled(ANY, "all ranks to join NCCL", links.clock.now() - begin)
            begin = links.clock.now()
    if isinstance(found[0], Exception):
        raise CommError(
            f"rank {links.rank} cannot join NCCL with {links.size} ranks: {found[0]}. NCCL_DEBUG=INFO in the workers' environment says "
            "more; device='cpu' goes without"
        )
    return NcclCommunicator(staged, device, found[0])


_: type[Communicator] = NcclCommunicator
