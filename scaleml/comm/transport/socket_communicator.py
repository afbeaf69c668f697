"""The communicator over sockets and shared memory: what strategies talk to on workers, and in the tests' threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar, final

import numpy as np
from numpy.typing import DTypeLike

from scaleml.arrays import Array
from scaleml.clock import WALL
from scaleml.comm.collectives.topology import TOPOLOGIES
from scaleml.comm.communicator import ANY, Communicator, Data, Handle, Lock, Message
from scaleml.comm.conventions import number_of, same_color
from scaleml.comm.emulation import LinkEmulator
from scaleml.comm.pending import PendingMessage, receive_before
from scaleml.comm.transport import direct, messages
from scaleml.comm.transport import frame as ops
from scaleml.comm.transport.channel import Channel
from scaleml.comm.transport.collective import allreduce_by
from scaleml.comm.transport.context import OfRank
from scaleml.comm.transport.exchange import exchange
from scaleml.comm.transport.frame import BYTES, CODES, Key, flat, new_key
from scaleml.comm.transport.gather_bytes import allgather_bytes
from scaleml.comm.transport.membership import Membership
from scaleml.comm.transport.memory import zeros
from scaleml.comm.transport.pending_send import PendingSend
from scaleml.comm.transport.streaming import send_receive_blocks

Result = TypeVar("Result")
Algorithm = Callable[[Membership, Channel, Array, Key], Result]

_now = WALL.now
_ALLREDUCE: Final = {name: (ops.allreduce_op(name), allreduce_by(name)) for name in TOPOLOGIES}


@final
class SocketCommunicator(OfRank):
    """Ranks linked by sockets; made by `connect`, `split`, or `scaleml.comm.inprocess`. See `Communicator`.

    Attributes
    ----------
    run, generation : int
        Which run, and which of its generations; frames of any other are refused.

    Examples
    --------
    >>> import numpy as np
    >>> from scaleml.comm import inprocess
    >>> def total(group):
    ...     x = np.full(3, group.rank + 1.0)
    ...     group.allreduce(x)
    ...     return x.tolist()
    >>> inprocess.run(2, total)
    [[3.0, 3.0, 3.0], [3.0, 3.0, 3.0]]
    """

    def __init__(self, members: Membership) -> None:
        self.mesh: Final = members.mesh
        self.members = members
        context = members.context
        super().__init__(context)
        self._channel = members.mesh.channel
        self.rank: Final = members.rank
        self.size: Final = members.size
        self.ranks: Final = members.ranks
        self.hosts: Final = members.hosts
        self.run = context.run
        self.generation = context.generation
        self._sequence = 0
        self._pending: list[PendingMessage] = []
        self._subsets: dict[Membership, SocketCommunicator] = {}

    @property
    def lost(self) -> frozenset[int]:
        """Ranks, by root numbers, whose links were found closed."""
        return frozenset(self._channel.lost | self.mesh.progress.channel.lost)

    # --- collectives ----------------------------------------------------------------------------------------------

    def part(self, rank: int, n: int) -> tuple[int, int]:
        return self.members.part(rank, n)

    def allreduce(self, x: Array, topology: str = "direct") -> None:
        """Sum `x` over the ranks, in place, in the order of a topology: with the same bits everywhere, always.

        Parameters
        ----------
        x : contiguous array
            Float32, float64, int32, int64 or uint8. Fastest if small, or if it lies in a `buffer`.
        topology : str
            One of `scaleml.comm.collectives.TOPOLOGIES`.

        Raises
        ------
        Mismatch
            If another rank is in another collective, or has another length or dtype.
        PeerLost, PeerTimeout, CorruptFrame, Aborted
        """
        op, algorithm = _ALLREDUCE[topology]
        self._run(op, x, algorithm)

    def allreduce_start(self, x: Array, topology: str = "direct") -> Handle[None]:
        op, algorithm = _ALLREDUCE[topology]
        return self._start(op, x, algorithm)

    def reduce_scatter(self, x: Array) -> Array:
        return self._run(ops.REDUCE_SCATTER, x, direct.reduce_scatter)

    def reduce_scatter_start(self, x: Array) -> Handle[Array]:
        return self._start(ops.REDUCE_SCATTER, x, direct.reduce_scatter)

    def allgather(self, x: Array) -> Array:
        return self._run(ops.ALLGATHER, x, direct.allgather)

    def allgather_start(self, x: Array) -> Handle[Array]:
        return self._start(ops.ALLGATHER, x, direct.allgather)

    def reduce(self, x: Array, root: int = 0) -> None:
        self._rooted(ops.REDUCE, x, direct.reduce, root)

    def broadcast(self, x: Array, root: int = 0) -> None:
        self._rooted(ops.BROADCAST, x, direct.broadcast, root)

    def allgather_bytes(self, payload: bytes) -> list[bytes]:
        return self._call(allgather_bytes, bytes(payload), self._key(ops.ALLGATHER_BYTES, BYTES, 0))

    def barrier(self) -> None:
        self._call(direct.barrier, self._key(ops.BARRIER, BYTES, 0))

    def exchange(self, outgoing: Sequence[Array], places: Sequence[Array], items: int, codec: int = 0) -> None:
        """Send and receive; the lengths follow from `items` and `codec`, and ranks that differ in these get `Mismatch`."""
        self._call(exchange, outgoing, places, self._key(ops.EXCHANGE, CODES[outgoing[0].dtype], items, codec))

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
        ranks, blocks = self.members.ranks, (*outgoing, *incoming)
        if blocks:  # two ranks do it together: no number that all count
            key = Key(self.members.number, 0, ops.SEND_RECEIVE, CODES[flat(blocks[0], self.rank).dtype], 0)
            self._call(send_receive_blocks, key, outgoing, ranks[dest], incoming, ranks[source], added, ahead)

    def _rooted(self, op: int, x: Array, algorithm: Callable[..., None], root: int) -> None:
        if not 0 <= root < self.size:
            raise ValueError(f"root={root} is no rank of this group: they are 0 to {self.size - 1}")
        vector = flat(x, self.rank)
        self._call(algorithm, vector, self._key(op, CODES[vector.dtype], vector.size), root)

    def _run(self, op: int, x: Array, algorithm: Algorithm[Result]) -> Result:
        vector = flat(x, self.rank)
        self._sequence = sequence = self._sequence + 1
        key = new_key((self.members.number, sequence, op, CODES[vector.dtype], vector.size & 0xFFFFFFFF, 0))
        return self._call(algorithm, vector, key)

    def _start(self, op: int, x: Array, algorithm: Algorithm[Result]) -> Handle[Result]:
        vector, members = flat(x, self.rank), self.members
        key = self._key(op, CODES[vector.dtype], vector.size)
        return self.mesh.progress.start(lambda channel: algorithm(members, channel, vector, key))

    def _call(self, algorithm: Callable[..., Result], *args: Any) -> Result:
        context, channel, progress = self._context, self._channel, self.mesh.progress
        if progress.busy:
            progress.drain()
        if context.ended:
            context.check()
        channel.blocked = 0.0
        if context.emulated_delay or context.inherited_delay:
            context.inherited_delay, context.emulated_delay = context.emulated_delay, 0.0
        start = _now()
        try:
            return algorithm(self.members, channel, *args)
        finally:
            context.meter.account(_now() - start, channel.blocked, channel.blocker)

    def _key(self, op: int, dtype: int, items: int, codec: int = 0) -> Key:
        self._sequence += 1
        return Key(self.members.number, self._sequence, op, dtype, items & 0xFFFFFFFF, codec)

    # --- messages -------------------------------------------------------------------------------------------------

    def send(self, x: Data, dest: int, tag: int = 0, sequence: int = 0, codec: int = 0) -> None:
        """Send `x`, a contiguous array or bytes, to rank `dest`.

        If it lies in a `buffer` shared with `dest` and has more than 64 KB it stays there, and only its place is sent: `x`
        must then not be touched until `dest` has answered, in the caller's own protocol. Anything else can be reused at
        once. `sequence` (64 bits) and `codec` (8 bits) mean what the caller likes.
        """
        messages.send(self.members, x, dest, tag, sequence, codec)

    def send_start(self, x: Data, dest: int, tag: int = 0, sequence: int = 0, codec: int = 0) -> Handle[None]:
        """Send what goes without waiting; the rest goes while messages are waited for, before a collective, or by `wait`."""
        return PendingSend(self.members, messages.send_start(self.members, x, dest, tag, sequence, codec))

    def recv(self, source: int = ANY, tag: int = 0, out: Array | None = None, view: bool = False) -> Message:
        """Receive the next message with `tag` from rank `source`, or from anybody (all get their turn).

        Raises
        ------
        PeerLost
            If the source left. From anybody: once for every rank that left, then only when nobody is left.
        PeerTimeout, CorruptFrame, Aborted
        """
        if self._pending:
            receive_before(self._pending, source, tag)
        return messages.recv(self.members, source, tag, out, view)

    def recv_start(self, source: int = ANY, tag: int = 0, out: Array | None = None) -> Handle[Message]:
        """Receive a message when it is waited for, in the order in which those of one source and tag were started."""
        members = self.members
        return PendingMessage(
            source, tag, self._pending,
            receive=lambda: messages.recv(members, source, tag, out, False),
            is_here=lambda: messages.is_here(members, source, tag, 0.0),
        )  # fmt: skip

    def poll(self, tag: int = 0, seconds: float = 0.0) -> bool:
        return messages.is_here(self.members, ANY, tag, seconds)

    @property
    def announcements(self) -> dict[int, bytes]:
        """What rank 0 announced, by number, as far as frames were read."""
        return self._context.announcements

    def announce(self, number: int, payload: bytes) -> None:
        messages.announce(self.members, number, bytes(payload))

    def await_announcement(self, number: int, forever: bool = False) -> bytes:
        """Read from rank 0; with `forever` nothing ends the wait but the announcement, an abort, or the loss of rank 0."""
        return messages.await_announcement(self.members, number, forever)

    # --- memory, sub-communicators -------------------------------------------------------------------

    def buffer(self, n: int, dtype: DTypeLike = np.float32) -> Array:
        """Return `n` zeros; neither they nor contiguous slices of them need be copied to travel on this host.

        If a rank cannot have shared memory, all get ordinary memory.
        """
        return self.members.memory.buffer(self.allgather_bytes, n, np.dtype(dtype))

    def shared_vector(self, n: int, dtype: DTypeLike = np.float32) -> Array | None:
        """Return `n` zeros (more than none) that all ranks read and write in the same memory; collective.

        Nothing orders what several ranks read and write there at one time but the processor, which writes aligned items of
        up to 8 bytes whole. None, on all ranks, where they do not share one host's memory.
        """
        kind = np.dtype(dtype)
        if self.size == 1:
            return zeros(n, kind)
        found = self.members.memory.common(self.allgather_bytes, n * kind.itemsize)
        return None if found is None else found[0].array(kind, n)

    def locked_memory(self, nbytes: int) -> tuple[Array, Lock] | None:
        """Return so many zero bytes (more than none) that all ranks map, and a lock for writing there; collective.

        None, on all ranks, where they do not share one host's memory.
        """
        found = self.members.memory.common(self.allgather_bytes, nbytes, locked=True)
        if found is None or found[1] is None:
            return None
        return found[0].array(np.uint8, nbytes), found[1]

    def subset(self, ranks: Sequence[int]) -> SocketCommunicator:
        members = self.members.subset(ranks)
        if members not in self._subsets:
            self._subsets[members] = SocketCommunicator(members)
        return self._subsets[members]

    def split(self, color: int | None, key: int = 0) -> SocketCommunicator | None:
        """Make one communicator of all ranks with the same `color`; it uses this one's links and meter."""
        ranks = same_color(self.allgather_bytes, self.ranks, color, key)
        if color is None:
            return None
        return SocketCommunicator(Membership(self.mesh, ranks, number_of(self.members.number, self._sequence, color)))

    # --- how waits end --------------------------------------------------------------------------------------------

    def emulation(self) -> LinkEmulator:
        return self.mesh.emulation()

    @property
    def is_emulated(self) -> bool:
        return self.mesh.emulator is not None

    def abort(self, reason: str) -> None:
        self.mesh.abort(reason)

    def close(self) -> None:
        self.mesh.close()

    def __enter__(self) -> SocketCommunicator:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<SocketCommunicator: rank {self.rank} of {self.size}, run {self.run:x}, generation {self.generation}>"


_: type[Communicator] = SocketCommunicator
