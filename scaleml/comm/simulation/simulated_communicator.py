"""The communicator of one simulated rank."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import final

import numpy as np
from numpy.typing import DTypeLike

from scaleml.arrays import Array
from scaleml.comm.communicator import ANY, Communicator, Data, Handle, Lock, Message
from scaleml.comm.conventions import number_hosts, number_of, part, same_color
from scaleml.comm.pending import PendingMessage, receive_before
from scaleml.comm.simulation import merging
from scaleml.comm.simulation.handles import DONE, SimulatedHandle, Stream
from scaleml.comm.simulation.mailbox import Mailbox
from scaleml.comm.simulation.network import Network, SimulatedEmulation
from scaleml.comm.simulation.operation import Merge, Operation, Post
from scaleml.comm.transport import key as ops
from scaleml.comm.transport.frame import BYTES, CODES, flat
from scaleml.comm.transport.key import Key


@final
class SimulatedCommunicator:
    """Ranks on virtual clocks; made by `scaleml.comm.simulated.run` and `split`. See `Communicator`.

    Sums of every topology are made in rank order, with the bits of "direct". What is sent is copied, so nothing need be left alone.
    """

    def __init__(self, network: Network, root: int, ranks: tuple[int, ...], number: int, stream: Stream) -> None:
        self.ranks = ranks
        self.rank = ranks.index(root)
        self.size = len(ranks)
        self.hosts = number_hosts([network.hosts[rank] for rank in ranks])
        self._network = network
        self._root = root
        self._number = number
        self._context = network.tasks[root].context
        self._stream = stream
        self._sequence = 0
        self._queue: list[PendingMessage] = []
        self._mailbox = Mailbox(network, root, ranks, number)
        self.meter = self._context.meter
        self.clock = self._context.clock

    @property
    def step(self) -> int:
        return self._context.step

    @step.setter
    def step(self, step: int) -> None:
        self._context.step = step

    @property
    def compute_seconds(self) -> float:
        return self._context.compute_seconds

    @compute_seconds.setter
    def compute_seconds(self, seconds: float) -> None:
        self._context.compute_seconds = seconds

    @property
    def control(self) -> int:
        return self._context.control

    @control.setter
    def control(self, control: int) -> None:
        self._context.control = control

    @property
    def timeout(self) -> float:
        return self._context.timeout

    # --- collectives ----------------------------------------------------------------------------------------------

    def part(self, rank: int, n: int) -> tuple[int, int]:
        return part(self.size, rank, n)

    def allreduce(self, x: Array, topology: str = "direct") -> None:
        self._drain()
        self.allreduce_start(x, topology).wait()

    def allreduce_start(self, x: Array, topology: str = "direct") -> Handle[None]:
        name = f"allreduce {topology}"
        op = ops.ALLREDUCE if topology == "direct" else ops.OPS.index(f"{topology} allreduce")
        return self._vector(op, name, x, merging.allreduce, 2 / self.size)

    def reduce_scatter(self, x: Array) -> Array:
        self._drain()
        return self.reduce_scatter_start(x).wait()

    def reduce_scatter_start(self, x: Array) -> Handle[Array]:
        return self._vector(ops.REDUCE_SCATTER, "reduce_scatter", x, merging.reduce_scatter, 1 / self.size)

    def allgather(self, x: Array) -> Array:
        self._drain()
        return self.allgather_start(x).wait()

    def allgather_start(self, x: Array) -> Handle[Array]:
        return self._vector(ops.ALLGATHER, "allgather", x, merging.allgather, 1.0)

    def broadcast(self, x: Array, root: int = 0) -> None:
        if not 0 <= root < self.size:
            raise ValueError(f"root={root} is no rank of this group: they are 0 to {self.size - 1}")
        self._drain()
        self._vector(ops.BROADCAST, "broadcast", x, merging.broadcast(root), 1.0 if root == self.rank else 0.0).wait()

    def allgather_bytes(self, payload: bytes) -> list[bytes]:
        self._drain()
        key = self._key(ops.ALLGATHER_BYTES, BYTES, 0)
        sent = len(payload) * (self.size - 1)
        return self._start("allgather_bytes", key, bytes(payload), merging.copies, merging.most_received, sent).wait()

    def barrier(self) -> None:
        self._drain()
        self._start("barrier", self._key(ops.BARRIER, BYTES, 0), b"", merging.copies, merging.nothing, 0).wait()

    def exchange(self, outgoing: Sequence[Array], places: Sequence[Array], items: int, codec: int = 0) -> None:
        self._drain()
        sent = sum(payload.nbytes for rank, payload in enumerate(outgoing) if rank != self.rank)
        key = self._key(ops.EXCHANGE, CODES[outgoing[0].dtype], items, codec)
        given = outgoing, places, sent
        self._start("exchange", key, given, merging.exchange(self.ranks), merging.most_sent, sent).wait()

    def _vector(self, op: int, name: str, x: Array, merge: Merge, share: float) -> SimulatedHandle:
        """Start a collective on a vector, of which this rank sends a share to each of the others."""
        vector = flat(x, self.rank)
        key = self._key(op, CODES[vector.dtype], vector.size)
        return self._start(name, key, vector, merge, merging.length, round(vector.nbytes * share) * (self.size - 1))

    def _start(
        self,
        name: str,
        key: Key,
        data: object,
        merge: Merge,
        nbytes: Callable[[Sequence[object]], int],
        sent: int,
    ) -> SimulatedHandle:
        network, context = self._network, self._context
        context.check()
        place = key.group, key.sequence
        if place not in network.operations:
            network.operations[place] = Operation(
                self.ranks, merge, lambda given: network.costs.collective(name, nbytes(given), self.hosts)
            )
        operation = network.operations[place]
        emulation, now = network.emulations[self._root], self.clock.now()
        delay = max((emulation.delayed(peer, sent) - now for peer in self.ranks if peer != self._root), default=0.0)
        operation.post(self.rank, Post(context, key, now, self._stream.last, data, delay))
        if operation.is_full:
            del network.operations[place]
        handle = SimulatedHandle(network, self._root, operation, self.rank, key, sent)
        self._stream.add(operation, handle)
        return handle

    def _drain(self) -> None:
        self._stream.drain()

    def _key(self, op: int, dtype: int, items: int, codec: int = 0) -> Key:
        self._sequence += 1
        return Key(self._number, self._sequence, op, dtype, items & 0xFFFFFFFF, codec)

    # --- messages -------------------------------------------------------------------------------------------------

    def send(self, x: Data, dest: int, tag: int = 0, sequence: int = 0, codec: int = 0) -> None:
        """Send a copy of `x`; it leaves when the link is free, and the sender does not wait for that."""
        self._mailbox.send(x, dest, tag, sequence, codec)

    def send_start(self, x: Data, dest: int, tag: int = 0, sequence: int = 0, codec: int = 0) -> Handle[None]:
        self._mailbox.send(x, dest, tag, sequence, codec)
        return DONE

    def recv(self, source: int = ANY, tag: int = 0, out: Array | None = None, view: bool = False) -> Message:
        receive_before(self._queue, source, tag)
        return self._mailbox.receive(source, tag, out)

    def recv_start(self, source: int = ANY, tag: int = 0, out: Array | None = None) -> Handle[Message]:
        mailbox = self._mailbox
        return PendingMessage(
            source, tag, self._queue,
            receive=lambda: mailbox.receive(source, tag, out),
            is_here=lambda: mailbox.is_here(source, tag, 0.0),
        )  # fmt: skip

    def poll(self, tag: int = 0, seconds: float = 0.0) -> bool:
        return self._mailbox.is_here(ANY, tag, seconds)

    def announce(self, number: int, payload: bytes) -> None:
        self._mailbox.announce(number, payload)

    def await_announcement(self, number: int, forever: bool = False) -> bytes:
        return self._mailbox.await_announcement(number, forever)

    def raise_control(self, control: int) -> None:
        self._context.raise_control(control)

    # --- memory, sub-communicators -------------------------------------------------------------------

    def buffer(self, n: int, dtype: DTypeLike = np.float32) -> Array:
        """Return `n` zeros; collective. They are nobody else's: what is sent is copied."""
        self.barrier()
        return np.zeros(n, dtype)

    def shared_vector(self, n: int, dtype: DTypeLike = np.float32) -> Array | None:
        self._drain()
        vector = np.zeros(n, dtype)
        key = self._key(ops.ALLGATHER_BYTES, CODES[vector.dtype], n)
        shared: Array = self._start("barrier", key, vector, merging.first, merging.nothing, 0).wait()
        return shared if len(set(self.hosts)) == 1 else None

    def locked_memory(self, nbytes: int) -> tuple[Array, Lock] | None:
        """Return None: locks are not simulated, and who asks does without."""
        self.barrier()
        return None

    def split(self, color: int | None, key: int = 0) -> SimulatedCommunicator | None:
        ranks = same_color(self.allgather_bytes, self.ranks, color, key)
        if color is None:
            return None
        number = number_of(self._number, self._sequence, color)
        return SimulatedCommunicator(self._network, self._root, ranks, number, self._stream)

    # --- how waits end --------------------------------------------------------------------------------------------

    def check(self) -> None:
        self._context.check()

    def stalled(self, peer: int, waiting_for: object, seconds: float) -> None:
        self._context.stalled(peer, waiting_for, seconds)

    def emulation(self) -> SimulatedEmulation:
        emulation = self._network.emulations[self._root]
        emulation.used = True
        return emulation

    @property
    def is_emulated(self) -> bool:
        return self._network.emulations[self._root].used

    def abort(self, reason: str) -> None:
        self._context.abort(reason)
        self._network.leave(self._root)

    def close(self) -> None:
        self._context.close()
        self._network.leave(self._root)

    def __enter__(self) -> SimulatedCommunicator:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<SimulatedCommunicator: rank {self.rank} of {self.size}, at {self.clock.now():.6g} s>"


_: type[Communicator] = SimulatedCommunicator
