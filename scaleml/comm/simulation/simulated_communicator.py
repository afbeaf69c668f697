"""The communicator of one simulated rank."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, final

import numpy as np
from numpy.typing import DTypeLike

from scaleml.arrays import Array
from scaleml.comm.collectives.table import ALGORITHMS, Algorithm
from scaleml.comm.communicator import ANY, Communicator, Data, Handle, Lock, Message
from scaleml.comm.conventions import number_hosts, number_of, number_of_subset, part, same_color
from scaleml.comm.pending import PendingMessage, receive_before
from scaleml.comm.simulation import merging
from scaleml.comm.simulation.handles import DONE, SimulatedHandle, Stream
from scaleml.comm.simulation.mailbox import BLOCKS, Mailbox
from scaleml.comm.simulation.merging import Merge
from scaleml.comm.simulation.network import Network, SimulatedEmulation
from scaleml.comm.simulation.operation import Operation, Outcome, Post
from scaleml.comm.simulation.rank_threads import on_ranks
from scaleml.comm.transport import frame as ops
from scaleml.comm.transport.context import OfRank
from scaleml.comm.transport.frame import BYTES, CODES, Key, flat


@final
class SimulatedCommunicator(OfRank):
    """Ranks on virtual clocks; made by `scaleml.comm.simulated.run` and `split`. See `Communicator`.

    What is sent is copied, so nothing need be left alone. Of the topologies, those that have no formula in the table of costs run on
    simulated links once all ranks are there, and have the bits of real ones; those that have one are summed in rank order.
    """

    def __init__(self, network: Network, root: int, ranks: tuple[int, ...], number: int, stream: Stream) -> None:
        super().__init__(network.tasks[root].context)
        self.ranks = ranks
        self.rank = ranks.index(root)
        self.size = len(ranks)
        self.hosts = number_hosts([network.hosts[rank] for rank in ranks])
        self._network = network
        self._root = root
        self._number = number
        self._stream = stream
        self._sequence = 0
        self._queue: list[PendingMessage] = []
        self._subsets: dict[tuple[int, ...], SimulatedCommunicator] = {}
        self._mailbox = Mailbox(network, root, ranks, number)

    # --- collectives ----------------------------------------------------------------------------------------------

    def part(self, rank: int, n: int) -> tuple[int, int]:
        return part(self.size, rank, n)

    def allreduce(self, x: Array, topology: str = "direct") -> None:
        self._drain()
        self.allreduce_start(x, topology).wait()

    def allreduce_start(self, x: Array, topology: str = "direct") -> Handle[None]:
        op, name = ops.allreduce_op(topology), f"allreduce {topology}"
        if topology == "direct" or name in self._network.costs.formulas:
            return self._vector(op, name, x, merging.allreduce, 2 / self.size)
        return self._vector(op, name, x, merging.allreduce, 2 / self.size, self._played(ALGORITHMS[topology]))

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

    def reduce(self, x: Array, root: int = 0) -> None:
        self._rooted(ops.REDUCE, "reduce", x, merging.reduce, root, 1 / self.size)

    def broadcast(self, x: Array, root: int = 0) -> None:
        self._rooted(ops.BROADCAST, "broadcast", x, merging.broadcast, root, 1.0 if root == self.rank else 0.0)

    def allgather_bytes(self, payload: bytes) -> list[bytes]:
        self._drain()
        key = self._key(ops.ALLGATHER_BYTES, BYTES, 0)
        sent = len(payload) * (self.size - 1)
        outcome = self._table("allgather_bytes", merging.copies, merging.most_received)
        return self._start(key, bytes(payload), outcome, sent).wait()

    def barrier(self) -> None:
        self._drain()
        outcome = self._table("barrier", merging.copies, merging.nothing)
        self._start(self._key(ops.BARRIER, BYTES, 0), b"", outcome, 0).wait()

    def exchange(self, outgoing: Sequence[Array], places: Sequence[Array], items: int, codec: int = 0) -> None:
        self._drain()
        sent = sum(payload.nbytes for rank, payload in enumerate(outgoing) if rank != self.rank)
        key = self._key(ops.EXCHANGE, CODES[outgoing[0].dtype], items, codec)
        outcome = self._table("exchange", merging.exchange(self.ranks), merging.most_sent)
        self._start(key, (outgoing, places, sent), outcome, sent).wait()

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
        self._drain()
        ready = len(outgoing) if ahead is None else ahead
        for index, block in enumerate(outgoing[:ready]):
            self._mailbox.send(block, dest, BLOCKS, index, 0)
        for index, place in enumerate(incoming):
            self._mailbox.receive_block(source, place, index < added)
            for block in outgoing[ready + index : ready + index + 1]:
                self._mailbox.send(block, dest, BLOCKS, ready + index, 0)

    def _rooted(self, op: int, name: str, x: Array, merge: Callable[[int], Merge], root: int, share: float) -> None:
        if not 0 <= root < self.size:
            raise ValueError(f"root={root} is no rank of this group: they are 0 to {self.size - 1}")
        self._drain()
        self._vector(op, name, x, merge(root), share).wait()

    def _vector(
        self, op: int, name: str, x: Array, merge: Merge, share: float, played: Outcome | None = None
    ) -> SimulatedHandle:
        """Start a collective on a vector, of which this rank sends a share to each of the others."""
        vector = flat(x, self.rank)
        key = self._key(op, CODES[vector.dtype], vector.size)
        sent = round(vector.nbytes * share) * (self.size - 1)
        return self._start(key, vector, played or self._table(name, merge, merging.length), sent)

    def _table(self, name: str, merge: Merge, nbytes: Callable[[Sequence[Any]], int]) -> Outcome:
        """Return the outcome of a collective for which the table of costs has a formula."""
        costs, hosts = self._network.costs, self.hosts
        return lambda given: (merge(given), costs.collective(name, nbytes(given), hosts))

    def _played(self, algorithm: Algorithm) -> Outcome:
        """Return the outcome of a topology: its algorithm runs on links of its own, from the same moment on for all ranks."""
        hosts, costs = self.hosts, self._network.costs

        def outcome(vectors: Sequence[Array]) -> tuple[Sequence[None], float]:
            def play(network: Network, rank: int) -> float:
                everybody = SimulatedCommunicator(network, rank, tuple(range(len(hosts))), 1, Stream())
                algorithm(everybody, vectors[rank])
                return everybody.clock.now()

            return [None] * len(vectors), max(on_ranks(hosts, play, costs))

        return outcome

    def _start(self, key: Key, data: object, outcome: Outcome, sent: int) -> SimulatedHandle:
        network, context = self._network, self._context
        context.check()
        place = key.group, key.sequence
        if place not in network.operations:
            network.operations[place] = Operation(self.ranks, outcome)
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

    # --- memory, sub-communicators -------------------------------------------------------------------

    def buffer(self, n: int, dtype: DTypeLike = np.float32) -> Array:
        """Return `n` zeros; collective. They are nobody else's: what is sent is copied."""
        self.barrier()
        return np.zeros(n, dtype)

    def shared_vector(self, n: int, dtype: DTypeLike = np.float32) -> Array | None:
        self._drain()
        vector = np.zeros(n, dtype)
        key = self._key(ops.ALLGATHER_BYTES, CODES[vector.dtype], n)
        shared: Array = self._start(key, vector, self._table("barrier", merging.first, merging.nothing), 0).wait()
        return shared if len(set(self.hosts)) == 1 else None

    def locked_memory(self, nbytes: int) -> tuple[Array, Lock] | None:
        """Return None: locks are not simulated, and who asks does without."""
        self.barrier()
        return None

    def subset(self, ranks: Sequence[int]) -> SimulatedCommunicator:
        chosen = tuple(self.ranks[rank] for rank in ranks)
        if chosen not in self._subsets:
            number = number_of_subset(self._number, chosen)
            self._subsets[chosen] = SimulatedCommunicator(self._network, self._root, chosen, number, self._stream)
        return self._subsets[chosen]

    def split(self, color: int | None, key: int = 0) -> SimulatedCommunicator | None:
        ranks = same_color(self.allgather_bytes, self.ranks, color, key)
        if color is None:
            return None
        number = number_of(self._number, self._sequence, color)
        return SimulatedCommunicator(self._network, self._root, ranks, number, self._stream)

    # --- how waits end --------------------------------------------------------------------------------------------

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
