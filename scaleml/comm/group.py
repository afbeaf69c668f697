"""A group of ranks: what strategies talk to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter
from types import TracebackType
from typing import Any, final

import numpy as np
from numpy.typing import DTypeLike

from scaleml.clock import WALL

from . import collectives, gathering, messages, splitting
from . import key as ops
from .channel import ANY
from .exchange import exchange
from .frame import BYTES, CODES, COLLECTIVE, DTYPES, SUMMED
from .key import Key
from .memory import Memory
from .mesh import Mesh
from .messages import Data, Message
from .meter import Meter
from .progress import Handle
from .reducing import ALGORITHMS


@final
class Group:
    """Ranks that talk to each other; made by `connect`, `split`, or `scaleml.comm.inprocess`.

    For use by one thread, but for `abort`. Every wait ends: when nothing came for the timeout,
    ``on_stall(peer, step, waiting_for, seconds)`` decides whether to go on (`peer` is -1 for "anybody"). After any error
    but ``ValueError`` the group is good for nothing but `close`; a server may go on after `PeerLost`.

    Attributes
    ----------
    rank, size : int
        This rank's number in the group, and how many there are.
    ranks : tuple of int
        The members by their numbers in the root group, which is how errors and the meter name them.
    run, generation : int
        Which run, and which of its generations; frames of any other are refused.
    step, compute_seconds, control : int, float, int
        Set by the caller, stamped into every frame; `control` rises to the highest word that any frame brought. These
        and the meter are shared by all groups of a rank.
    meter : Meter
        Where the time went.

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

    def __init__(self, mesh: Mesh, ranks: Sequence[int], number: int) -> None:
        self.mesh = mesh
        self.number = number  # what its frames carry
        self.ranks = tuple(ranks)
        self.rank = self.ranks.index(mesh.rank)
        self.size = len(self.ranks)
        self.run = mesh.run
        self.generation = mesh.generation
        self.meter: Meter = mesh.meter
        self.peers = tuple(peer for peer in self.ranks if peer != mesh.rank)
        self.of_root = {root: rank for rank, root in enumerate(self.ranks)}
        self.one_host = all(mesh.hosts[a][b] for a in ranks for b in ranks)
        self.memory = Memory(mesh, self.peers)
        mesh.memories.append(self.memory)
        self.layers: tuple[Group, Group | None] | None = None  # within this host, and between hosts
        self._sequence = 0

    @property
    def step(self) -> int:
        return self.mesh.step

    @step.setter
    def step(self, step: int) -> None:
        self.mesh.step = step

    @property
    def compute_seconds(self) -> float:
        return self.mesh.compute_seconds

    @compute_seconds.setter
    def compute_seconds(self, seconds: float) -> None:
        self.mesh.compute_seconds = seconds

    @property
    def control(self) -> int:
        return self.mesh.control

    @control.setter
    def control(self, control: int) -> None:
        self.mesh.control = control

    @property
    def lost(self) -> frozenset[int]:
        """Ranks, by root numbers, whose links were found closed."""
        return frozenset(self.mesh.channel.lost | self.mesh.progress.channel.lost)

    # SHIM
    clock = WALL

    @property
    def hosts(self) -> tuple[int, ...]:
        leads = [min(o for o in self.ranks if self.mesh.hosts[r][o]) for r in self.ranks]
        order = sorted(set(leads))
        return tuple(order.index(lead) for lead in leads)

    @property
    def timeout(self) -> float:
        return self.mesh.timeout

    def check(self) -> None:
        self.mesh.check()

    def stalled(self, peer: int, waiting_for: object, seconds: float) -> None:
        self.mesh.stalled(peer, waiting_for, seconds)

    def raise_control(self, control: int) -> None:
        self.mesh.heed(control)

    def emulation(self) -> Any:
        return self.mesh.trouble()

    @property
    def is_emulated(self) -> bool:
        return self.mesh.wires is not None

    def shared_vector(self, n: int, dtype: DTypeLike = np.float32) -> Any:
        from .memory import shared_vector

        return shared_vector(self, n, dtype)

    def locked_memory(self, nbytes: int) -> Any:
        from .memory import locked_memory

        return locked_memory(self, nbytes)

    # --- collectives ----------------------------------------------------------------------------------------------
    def part(self, rank: int, n: int) -> tuple[int, int]:
        """Return the (start, stop) of the part of `n` items that `rank` owns in `reduce_scatter`."""
        align = 16 if n >= 1024 * self.size else 1  # whole cache lines
        start = n * rank // self.size // align * align
        return start, n if rank == self.size - 1 else n * (rank + 1) // self.size // align * align

    def allreduce(self, x: np.ndarray, algorithm: str = "direct") -> None:
        """Sum `x` over the ranks, in place, in the order of an algorithm of `reducing`: with the same bits everywhere, always.

        Parameters
        ----------
        x : contiguous array
            Float32, float64, int32, int64 or uint8. Fastest if small, or if it lies in a `buffer`.

        Raises
        ------
        Mismatch
            If another rank is in another collective, or has another length or dtype.
        PeerLost, PeerTimeout, CorruptFrame, Aborted
        """
        self._now(ALGORITHMS[algorithm].op, x, ALGORITHMS[algorithm].allreduce)

    def allreduce_start(self, x: np.ndarray, algorithm: str = "direct") -> Handle:
        """`allreduce` in the background; `x` must be left alone until the handle's `wait` returned.

        What was started runs in that order, the same on all ranks. A blocking collective first waits for all of it.
        """
        return self._later(ALGORITHMS[algorithm].op, x, ALGORITHMS[algorithm].allreduce)

    def reduce_scatter(self, x: np.ndarray) -> np.ndarray:
        """Sum `x` over the ranks; return this rank's `part`, a view of `x`, whose other parts are then undefined."""
        return self._now(ops.REDUCE_SCATTER, x, collectives.reduce_scatter)

    def reduce_scatter_start(self, x: np.ndarray) -> Handle:
        """`reduce_scatter` in the background; the handle's `wait` returns the part."""
        return self._later(ops.REDUCE_SCATTER, x, collectives.reduce_scatter)

    def allgather(self, x: np.ndarray) -> np.ndarray:
        """Return all ranks' `x`, which must have one length, as the rows of an array (size, len(x))."""
        return self._now(ops.ALLGATHER, x, collectives.allgather)

    def allgather_start(self, x: np.ndarray) -> Handle:
        """`allgather` in the background; the handle's `wait` returns the rows."""
        return self._later(ops.ALLGATHER, x, collectives.allgather)

    def broadcast(self, x: np.ndarray, root: int = 0) -> None:
        """Give all ranks the `x` of rank `root`, in place."""
        if not 0 <= root < self.size:
            raise ValueError(f"root={root} is no rank of this group: they are 0 to {self.size - 1}")
        self._now(
            ops.BROADCAST, x, lambda group, channel, flat, key: collectives.broadcast(group, channel, flat, key, root)
        )

    def allgather_bytes(self, payload: bytes) -> list[bytes]:
        """Return every rank's bytes, of any lengths, in rank order."""
        return self._call(gathering.allgather_bytes, bytes(payload), self._key(ops.ALLGATHER_BYTES, BYTES, 0))

    def barrier(self) -> None:
        """Return when all ranks have called it."""
        self._call(collectives.barrier, self._key(ops.BARRIER, BYTES, 0))

    def exchange(self, gifts: Sequence[np.ndarray], places: Sequence[np.ndarray], items: int, codec: int = 0) -> None:
        """Send ``gifts[r]`` to every other rank r, and receive what it sends into ``places[r]``.

        Contiguous uint8 arrays, whose lengths follow from `items` and `codec`: what they stand for. Ranks that differ in
        these get `Mismatch`.
        """
        self._call(exchange, gifts, places, self._key(ops.EXCHANGE, CODES[gifts[0].dtype], items, codec))

    def _now(self, op: int, x: np.ndarray, algorithm: Callable[..., Any]) -> Any:
        flat = self.vector(x)
        key = self._key(op, CODES[flat.dtype], flat.size)
        return self._call(algorithm, flat, key)

    def _later(self, op: int, x: np.ndarray, algorithm: Callable[..., Any]) -> Handle:
        flat = self.vector(x)
        key = self._key(op, CODES[flat.dtype], flat.size)
        return self.mesh.progress.start(lambda channel: algorithm(self, channel, flat, key))

    def _call(self, algorithm: Callable[..., Any], *args: Any) -> Any:
        mesh = self.mesh
        if mesh.progress.busy:
            mesh.progress.drain()
        mesh.check()
        channel = mesh.channel
        channel.blocked = 0.0
        if mesh.late or mesh.excuse:
            mesh.excuse, mesh.late = mesh.late, 0.0
        start = perf_counter()
        try:
            return algorithm(self, channel, *args)
        finally:
            self.meter.account(perf_counter() - start, channel.blocked, channel.blocker)

    def _key(self, op: int, dtype: int, items: int, codec: int = 0) -> Key:
        self._sequence += 1
        return Key(self.number, self._sequence, op, dtype, items & 0xFFFFFFFF, codec)

    def header(self, key: Key, length: int, checksum: int, flags: int = 0, block: int = 0) -> bytes:
        """Encode the header of a collective's frame."""
        mesh = self.mesh
        if mesh.channel.summed:
            flags |= SUMMED
        group, sequence, op, dtype, tag, codec = key
        return mesh.header(COLLECTIVE, group, sequence, op, tag, dtype, flags, block, codec, length, checksum)

    def vector(self, x: np.ndarray) -> np.ndarray:
        """Return `x` with one dimension; ``ValueError`` if it cannot travel."""
        if isinstance(x, np.ndarray) and x.dtype in CODES and x.flags.c_contiguous:
            return x if x.ndim == 1 else x.reshape(-1)
        kind = f"{x.dtype} array with strides {x.strides}" if isinstance(x, np.ndarray) else type(x).__name__
        raise ValueError(
            f"rank {self.rank} cannot send a {kind}: pass a contiguous NumPy array of "
            f"{', '.join(str(dtype) for dtype in DTYPES.values())} (np.ascontiguousarray makes one)"
        )

    # --- messages -------------------------------------------------------------------------------------------------

    def send(self, x: Data, dest: int, tag: int = 0, sequence: int = 0, codec: int = 0) -> None:
        """Send `x`, a contiguous array or bytes, to rank `dest`.

        If it lies in a `buffer` shared with `dest` and has more than 64 KB it stays there, and only its place is sent: `x`
        must then not be touched until `dest` has answered, in the caller's own protocol. Anything else can be reused at
        once. `sequence` (64 bits) and `codec` (8 bits) mean what the caller likes.
        """
        messages.send(self, x, dest, tag, sequence, codec)

    def recv(self, source: int = ANY, tag: int = 0, out: np.ndarray | None = None, view: bool = False) -> Message:
        """Receive the next message with `tag` from rank `source`, or from anybody (all get their turn).

        Parameters
        ----------
        out : contiguous array, optional
            Where the payload goes; it must have its dtype and size. By default a fresh array is made.
        view : bool
            Where the data lies in the sender's shared memory, return a read-only view of it instead of a copy.

        Raises
        ------
        PeerLost
            If the source left. From anybody: once for every rank that left, then only when nobody is left.
        PeerTimeout, CorruptFrame, Aborted
        """
        return messages.recv(self, source, tag, out, view)

    def poll(self, tag: int = 0, seconds: float = 0.0) -> bool:
        """Return whether a message with `tag` is here, from anybody; wait up to so long for something to come."""
        return messages.poll(self, tag, seconds)

    def other(self, rank: int, name: str) -> int:
        """Return the root number of another rank of the group."""
        if not 0 <= rank < self.size or rank == self.rank:
            raise ValueError(f"{name}={rank} must be another rank of this group: 0 to {self.size - 1}, not {self.rank}")
        return self.ranks[rank]

    # --- memory, groups of groups, commands -----------------------------------------------------------------------

    def buffer(self, n: int, dtype: DTypeLike = np.float32) -> np.ndarray:
        """Return `n` zeros that the ranks of one host share; collective, but every rank may have its own `n`.

        The array and contiguous slices of it need not be copied to travel on this host. If a rank cannot have shared
        memory, all get ordinary memory.
        """
        return self.memory.buffer(self, n, np.dtype(dtype))

    def split(self, color: int | None, key: int = 0) -> Group | None:
        """Make one group of all ranks with the same `color`, ordered by (`key`, rank); collective.

        None for the ranks whose color is None. The new group uses this one's links and meter.
        """
        members = splitting.members(self, color, key)
        if color is None:
            return None
        return Group(self.mesh, members, splitting.number(self.number, self._sequence, color))

    @property
    def announcements(self) -> dict[int, bytes]:
        """What rank 0 announced, by number, as far as frames were read."""
        return self.mesh.announcements

    def announce(self, number: int, payload: bytes) -> None:
        """On root rank 0: send `payload` to every rank; `number`, above all earlier ones, becomes the control word."""
        messages.announce(self, number, bytes(payload))

    def await_announcement(self, number: int, forever: bool = False) -> bytes:
        """Return announcement `number`, reading from rank 0 until it is here.

        With `forever` (a pause) nothing ends the wait but the announcement, an abort, or the loss of rank 0.
        """
        return messages.await_announcement(self, number, forever)

    # --- the end --------------------------------------------------------------------------------------------------

    def abort(self, reason: str) -> None:
        """From any thread, at any time: all calls on this rank's groups raise `Aborted`; its peers see it leave."""
        self.mesh.abort(reason)

    def close(self) -> None:
        """Close all links of this rank, end its thread, forget its segments; can be called again."""
        self.mesh.close()

    def __enter__(self) -> Group:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Group: rank {self.rank} of {self.size}, run {self.run:x}, generation {self.generation}>"
