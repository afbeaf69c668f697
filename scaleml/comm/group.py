"""A group of ranks: what strategies talk to."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence
from time import perf_counter
from types import TracebackType
from typing import Any, NamedTuple, final

import numpy as np
from numpy.typing import DTypeLike

from . import channel as ops
from . import collectives
from .channel import ANY, Channel, Key
from .collectives import bytes_of, doorbell, doorbell_array
from .errors import CommError
from .frame import BYTES, CODES, COLLECTIVE, CONTROL, DOORBELL, DTYPES, MESSAGE, SUMMED, Header
from .link import INLINE
from .mesh import Mesh, Place, Shared
from .meter import Meter
from .progress import Handle
from .segment import Segment

_COLOR = struct.Struct("<?qq")
_NUMBER = struct.Struct("<Q")
Data = np.ndarray | bytes | bytearray | memoryview


class Message(NamedTuple):
    """What `Group.recv` returns; the payload is an array, or ``bytes`` if bytes were sent."""

    source: int
    tag: int
    sequence: int
    step: int
    control: int
    compute_seconds: float
    codec: int
    payload: Any


@final
class Group:
    """Ranks that talk to each other; made by `scaleml.comm.connect`, `split`, or `scaleml.comm.inprocess`.

    Not for use by several threads at once, but for `abort`. Every wait ends: when nothing came for the timeout,
    ``on_stall(peer, step, waiting_for, seconds)`` decides whether to go on (`peer` is -1 for "anybody").

    Attributes
    ----------
    rank, size : int
        This rank's number in the group, and how many there are.
    run, generation : int
        Which run, and which of its generations; frames of any other are refused.
    step, compute_seconds : int, float
        Set by the caller; stamped into every frame. Shared by all groups of this rank, as are the next two.
    control : int
        The highest control word this rank knows of.
    meter : Meter
        Where the time went. Its `waited` is indexed by root rank, as are the `peer` of errors.

    Examples
    --------
    >>> import numpy as np
    >>> from scaleml.comm import inprocess
    >>> def twice(group):
    ...     x = np.full(3, group.rank + 1.0)
    ...     group.allreduce(x)
    ...     return x.tolist()
    >>> inprocess.run(2, twice)
    [[3.0, 3.0, 3.0], [3.0, 3.0, 3.0]]
    """

    def __init__(self, mesh: Mesh, ranks: Sequence[int], number: int = 0) -> None:
        self.mesh = mesh
        self.ranks = tuple(ranks)  # root ranks, in this group's order
        self.rank = self.ranks.index(mesh.rank)
        self.size = len(self.ranks)
        self.peers = tuple(peer for peer in self.ranks if peer != mesh.rank)
        self.one_host = self.size > 1 and all(mesh.hosts[a][b] for a in ranks for b in ranks)
        self._number = number
        self._sequence = 0
        self._of_root = {root: rank for rank, root in enumerate(self.ranks)}
        self._rooms: dict[Any, np.ndarray] = {}
        self._stage: Place | None = None
        self._no_room = 1 << 62  # bytes for which no segment could be made
        self._peer_stages: dict[int, int] = {}

    # --- what all groups of a rank share --------------------------------------------------------------------------

    @property
    def run(self) -> int:
        """The run's number."""
        return self.mesh.run

    @property
    def generation(self) -> int:
        """The generation of the run's group."""
        return self.mesh.generation

    @property
    def meter(self) -> Meter:
        """Seconds and bytes of this rank's communication."""
        return self.mesh.meter

    @property
    def step(self) -> int:
        """The caller's step."""
        return self.mesh.step

    @step.setter
    def step(self, step: int) -> None:
        self.mesh.step = step

    @property
    def compute_seconds(self) -> float:
        """The caller's seconds of computing."""
        return self.mesh.compute_seconds

    @compute_seconds.setter
    def compute_seconds(self, seconds: float) -> None:
        self.mesh.compute_seconds = seconds

    @property
    def control(self) -> int:
        """The highest control word known."""
        return self.mesh.control

    @control.setter
    def control(self, control: int) -> None:
        self.mesh.control = control

    @property
    def announcements(self) -> dict[int, bytes]:
        """What rank 0 announced, by number, as far as frames were read."""
        return self.mesh.announcements

    @property
    def lost(self) -> frozenset[int]:
        """Root ranks whose links were found closed."""
        return frozenset(self.mesh.channel.lost | self.mesh.progress.channel.lost)

    # --- collectives ----------------------------------------------------------------------------------------------

    def part(self, rank: int, n: int) -> tuple[int, int]:
        """The (start, stop) of the part of `n` items that `rank` owns."""
        align = 16 if n >= 1024 * self.size else 1  # whole cache lines
        start = n * rank // self.size // align * align
        return start, n if rank == self.size - 1 else n * (rank + 1) // self.size // align * align

    def allreduce(self, x: np.ndarray) -> None:
        """Sum `x` over the ranks, in place; always in rank order, so with the same bits everywhere and every time.

        Parameters
        ----------
        x : contiguous array
            Fastest if it lies in a `buffer` (or small).

        Raises
        ------
        Mismatch
            If another rank is in another collective, or has another length or dtype.
        PeerLost, PeerTimeout, CorruptFrame, Aborted
        """
        self._collective(ops.ALLREDUCE, x, collectives.allreduce)

    def allreduce_start(self, x: np.ndarray) -> Handle:
        """`allreduce` in the background; `x` must be left alone until the handle's `wait` returned.

        Operations run in the order they were started. All ranks must start the same ones, and wait for the same ones
        before they call anything else.
        """
        return self._start(ops.ALLREDUCE, x, collectives.allreduce)

    def reduce_scatter(self, x: np.ndarray) -> np.ndarray:
        """Sum `x` over the ranks; return this rank's part, a view of `x`, whose other parts are then undefined."""
        self._collective(ops.REDUCE_SCATTER, x, collectives.reduce_scatter)
        return self._own_part(x)

    def reduce_scatter_start(self, x: np.ndarray) -> Handle:
        """`reduce_scatter` in the background."""

        def algorithm(group: Group, channel: Channel, flat: np.ndarray, key: Key) -> np.ndarray:
            collectives.reduce_scatter(group, channel, flat, key)
            return self._own_part(flat)

        return self._start(ops.REDUCE_SCATTER, x, algorithm)

    def allgather(self, x: np.ndarray) -> np.ndarray:
        """Return all ranks' `x`, which must have one length, as the rows of an array (size, len(x))."""
        if self.size == 1:
            return self._vector(x).copy()[None]
        return self._collective(ops.ALLGATHER, x, collectives.allgather)  # type: ignore[no-any-return]

    def broadcast(self, x: np.ndarray, root: int = 0) -> None:
        """Give all ranks the `x` of rank `root`, in place."""
        self._check_rank(root, "root")

        def algorithm(group: Group, channel: Channel, flat: np.ndarray, key: Key) -> None:
            collectives.broadcast(group, channel, flat, root, key)

        self._collective(ops.BROADCAST, x, algorithm)

    def allgather_bytes(self, payload: bytes) -> list[bytes]:
        """Return every rank's bytes, of any lengths, in rank order."""
        key = self._key(ops.ALLGATHER_BYTES, BYTES, 0)
        return self._call(lambda channel: collectives.allgather_bytes(self, channel, bytes(payload), key))  # type: ignore[no-any-return]

    def barrier(self) -> None:
        """Return when all ranks have called it."""
        key = self._key(ops.BARRIER, BYTES, 0)
        if self.peers:
            header = self.header(key, 0, 0)
            self._call(lambda channel: channel.swap(self.peers, header, b"", key, key))

    def _collective(self, op: int, x: np.ndarray, algorithm: Callable[..., Any]) -> Any:
        flat = x if x.ndim == 1 and x.dtype in CODES and x.flags.c_contiguous else self._vector(x)
        key = self._key(op, CODES[flat.dtype], flat.size)
        if self.size == 1:
            return self.mesh.check()
        mesh = self.mesh
        if mesh.progress.busy:
            mesh.progress.drain()
        mesh.check()
        channel = mesh.channel
        channel.blocked = 0.0
        start = perf_counter()
        try:
            return algorithm(self, channel, flat, key)
        finally:
            mesh.meter.account(perf_counter() - start, channel.blocked, channel.blocker)

    def _start(self, op: int, x: np.ndarray, algorithm: Callable[..., Any]) -> Handle:
        flat = self._vector(x)
        key = self._key(op, CODES[flat.dtype], flat.size)
        if self.size == 1:
            return self.mesh.progress.start(lambda channel: self._own_part(flat) if op == ops.REDUCE_SCATTER else None)
        return self.mesh.progress.start(lambda channel: algorithm(self, channel, flat, key))

    def _call(self, operation: Callable[[Channel], Any]) -> Any:
        mesh = self.mesh
        mesh.progress.drain()
        mesh.check()
        mesh.channel.blocked = 0.0
        start = perf_counter()
        try:
            return operation(mesh.channel)
        finally:
            mesh.meter.account(perf_counter() - start, mesh.channel.blocked, mesh.channel.blocker)

    def _key(self, op: int, dtype: int, items: int) -> Key:
        self._sequence += 1
        return Key(self._number, self._sequence, op, dtype, items & 0xFFFFFFFF)

    def _own_part(self, x: np.ndarray) -> np.ndarray:
        start, stop = self.part(self.rank, x.size)
        return x.reshape(-1)[start:stop]

    def _vector(self, x: np.ndarray) -> np.ndarray:
        if not isinstance(x, np.ndarray) or x.dtype not in CODES or not x.flags.c_contiguous:
            kind = f"{x.dtype} array with strides {x.strides}" if isinstance(x, np.ndarray) else type(x).__name__
            raise ValueError(
                f"rank {self.rank} cannot send a {kind}: pass a contiguous NumPy array of "
                f"{', '.join(str(dtype) for dtype in DTYPES.values())} (np.ascontiguousarray makes one)"
            )
        return x.reshape(-1)

    def _check_rank(self, rank: int, name: str) -> None:
        if not 0 <= rank < self.size:
            raise ValueError(f"{name}={rank} is no rank of this group: they are 0 to {self.size - 1}")

    # --- messages -------------------------------------------------------------------------------------------------

    def send(self, x: Data, dest: int, tag: int = 0, sequence: int = 0, codec: int = 0) -> None:
        """Send `x`, a contiguous array or bytes, to rank `dest`.

        What lies in a `buffer` shared with `dest` and is larger than `INLINE` stays there: only its place is sent, and `x` must
        not be touched until `dest` has answered, in the caller's own protocol. Anything else can be reused at once.
        `sequence` and `codec` are the caller's, and arrive in the message.
        """
        self._check_rank(dest, "dest")
        if dest == self.rank:
            raise ValueError(f"rank {dest} cannot send to itself")
        mesh, peer, flags = self.mesh, self.ranks[dest], 0
        mesh.check()
        start = perf_counter()
        payload: Any
        if isinstance(x, np.ndarray):
            payload = x if x.ndim == 1 and x.dtype in CODES and x.flags.c_contiguous else self._vector(x)
            dtype = CODES[payload.dtype]
            if payload.nbytes > INLINE and (place := mesh.locate(payload, (peer,))) is not None:
                mesh.meter.bytes_sent += payload.nbytes
                payload = doorbell(place.number, place.offset, payload.nbytes)
                flags = DOORBELL
        else:
            payload, dtype = memoryview(x).cast("B"), BYTES
        channel = mesh.channel
        header = mesh.header(
            MESSAGE, self._number, sequence, tag=tag, dtype=dtype, flags=flags | (SUMMED if channel.summed else 0),
            codec=codec, length=payload.nbytes if flags == 0 else len(payload), checksum=channel.checksum(payload),
        )  # fmt: skip
        channel.send((peer,), header, payload, "room to send")
        mesh.meter.comm += perf_counter() - start

    def recv(self, source: int = ANY, tag: int = 0, out: np.ndarray | None = None, view: bool = False) -> Message:
        """Receive the next message with `tag` from rank `source`, or from anybody.

        Parameters
        ----------
        out : contiguous array, optional
            Where the payload goes; it must have its size. By default a fresh array is made.
        view : bool
            Where the data lies in the sender's shared memory, return a read-only view of it instead of a copy.

        Raises
        ------
        PeerLost
            If the source left. From anybody: once for every rank that left, then only when nobody is left.
        PeerTimeout, CorruptFrame, Aborted
        """
        mesh = self.mesh
        mesh.check()
        if source == ANY:
            peers = self.peers
        else:
            self._check_rank(source, "source")
            peers = (self.ranks[source],)
        if not peers or peers[0] == mesh.rank:
            raise ValueError(f"rank {self.rank} cannot receive from itself")
        channel = mesh.channel
        channel.blocked = 0.0
        what = f"a message with tag {tag}"
        start = perf_counter()
        try:
            peer, header, payload = channel.message(peers, self._number, tag, what)
            if header.flags & DOORBELL:
                payload = self._rung(peer, header, channel.body(peer, what) if payload is None else payload, out, view)
            elif payload is None:
                payload = self._read(channel, peer, header, out, what)
            else:
                payload = self._decode(peer, header, payload, out)
        finally:
            mesh.meter.account(perf_counter() - start, channel.blocked, channel.blocker)
        return Message(
            self._of_root[peer], header.tag, header.sequence, header.step, header.control, header.compute_seconds,
            header.codec, payload,
        )  # fmt: skip

    def poll(self, tag: int = 0) -> bool:
        """Whether a message with `tag` is here, from anybody."""
        self.mesh.check()
        return self.mesh.channel.find(self.peers, self._number, tag, "a message") is not None

    def _read(self, channel: Channel, peer: int, header: Header, out: np.ndarray | None, what: str) -> Any:
        if out is not None:
            self._check_out(peer, header, out, header.length)
            channel.into(peer, bytes_of(out), what)
            return out
        if header.dtype == BYTES:
            data = bytearray(header.length)
            channel.into(peer, memoryview(data), what)
            return bytes(data)
        dtype = DTYPES[header.dtype]
        array = np.empty(header.length // dtype.itemsize, dtype)
        channel.into(peer, bytes_of(array), what)
        return array

    def _decode(self, peer: int, header: Header, payload: Any, out: np.ndarray | None) -> Any:
        if out is not None:
            self._check_out(peer, header, out, len(payload))
            bytes_of(out)[:] = payload
            return out
        return bytes(payload) if header.dtype == BYTES else np.frombuffer(payload, DTYPES[header.dtype])

    def _rung(self, peer: int, header: Header, payload: Any, out: np.ndarray | None, view: bool) -> np.ndarray:
        array = doorbell_array(self, peer, bytes(payload), DTYPES[header.dtype])
        assert array is not None
        self.mesh.meter.bytes_received += array.nbytes
        if view and out is None:
            array.flags.writeable = False
            return array
        if out is None:
            return array.copy()
        self._check_out(peer, header, out, array.nbytes)
        out.reshape(-1)[:] = array
        return out

    def _check_out(self, peer: int, header: Header, out: np.ndarray, nbytes: int) -> None:
        if out.nbytes != nbytes or not out.flags.c_contiguous or (header.dtype and DTYPES[header.dtype] != out.dtype):
            kind = DTYPES[header.dtype] if header.dtype else "bytes"
            raise ValueError(
                f"rank {self.mesh.rank} cannot receive {nbytes} bytes ({kind}) from rank {peer} into an array of "
                f"{out.nbytes} bytes ({out.dtype}): `out` must be contiguous and have the message's dtype and size"
            )

    # --- shared memory --------------------------------------------------------------------------------------------

    def buffer(self, n: int, dtype: DTypeLike = np.float32) -> np.ndarray:
        """Return `n` zeros that the ranks on this host share; collective, but every rank may have its own `n`.

        The array and contiguous slices of it need not be copied to travel between ranks of one host. Where shared memory
        cannot be had, on all ranks it is ordinary memory.
        """
        dtype = np.dtype(dtype)
        mesh = self.mesh
        sharers = [peer for peer in self.peers if mesh.hosts[mesh.rank][peer]]
        number = mesh.number()
        segment = Segment.create(n * dtype.itemsize, mesh.scratch) if n and sharers else None
        if segment is not None:
            mesh.named.add(segment)
        fine = segment is not None or not n or not sharers
        replies = self.allgather_bytes(_COLOR.pack(fine, number, n) + (segment.path.encode() if segment else b""))
        opened: dict[tuple[int, int], Segment] = {}
        for root, reply in zip(self.ranks, replies, strict=True):
            flag, their_number, _ = _COLOR.unpack_from(reply)
            fine = fine and flag
            path = reply[_COLOR.size :].decode()
            if fine and path and root in sharers:
                try:
                    opened[root, their_number] = Segment.open(path)
                except OSError:
                    fine = False
        fine = all(self.allgather_bytes(b"\1" if fine else b"\0")[rank] == b"\1" for rank in range(self.size))
        if segment is not None:
            segment.unlink()
            mesh.named.discard(segment)
        if not fine or segment is None:
            if fine:
                mesh.theirs.update(opened)
            return np.zeros(n, dtype)
        mesh.theirs.update(opened)
        mesh.segments.append(Shared(segment, number, frozenset(sharers)))
        return segment.array(dtype, n)

    def place(self, x: np.ndarray) -> Place | None:
        """Where `x` lies in shared memory; it is copied into this group's stage if need be. None if there is no room."""
        found = self.mesh.locate(x, self.peers)
        if found is not None:
            return found
        if self._stage is None or self._stage.segment.nbytes < x.nbytes:
            if x.nbytes >= self._no_room:
                return None
            segment = Segment.create(1 << (x.nbytes - 1).bit_length(), self.mesh.scratch)
            if segment is None:
                self._no_room = x.nbytes
                return None
            self.mesh.named.add(segment)
            self._stage = Place(segment, self.mesh.number(), 0)
        self._stage.segment.array(x.dtype, x.size)[:] = x
        return self._stage

    def forget_name(self) -> None:
        """All peers have opened the stage."""
        if self._stage is not None and self._stage.segment.named:
            self._stage.segment.unlink()
            self.mesh.named.discard(self._stage.segment)

    def peer_segment(self, peer: int, number: int, path: str) -> Segment:
        """A peer's segment; `path` is given with its first use, where it is that peer's new stage."""
        theirs = self.mesh.theirs
        if path and (peer, number) not in theirs:
            theirs.pop((peer, self._peer_stages.get(peer, 0)), None)
            self._peer_stages[peer] = number
            theirs[peer, number] = Segment.open(path)
        return theirs[peer, number]

    def room(self, name: str, dtype: np.dtype[Any], size: int) -> np.ndarray:
        """Scratch memory of at least this size, kept between calls."""
        room = self._rooms.get((name, dtype))
        if room is None or room.size < size:
            room = self._rooms[name, dtype] = np.empty(size, dtype)
        return room[:size]

    def header(self, key: Key, length: int, checksum: int, flags: int = 0, index: int = 0) -> bytes:
        """The header of a collective's frame."""
        summed = SUMMED if self.mesh.channel.summed else 0
        return self.mesh.header(
            COLLECTIVE, key.group, key.sequence, op=key.op, tag=key.tag, dtype=key.dtype, flags=flags | summed,
            index=index, length=length, checksum=checksum,
        )  # fmt: skip

    # --- groups of groups, commands, the end ----------------------------------------------------------------------

    def split(self, color: int | None, key: int = 0) -> Group | None:
        """Make one group of all ranks with the same `color`, ordered by (`key`, rank); collective.

        Returns None for the ranks whose color is None. The new group shares this one's links and meter.
        """
        replies = self.allgather_bytes(_COLOR.pack(color is not None, color or 0, key))
        if color is None:
            return None
        members = []
        for rank, reply in enumerate(replies):
            valid, theirs, order = _COLOR.unpack(reply)
            if valid and theirs == color:
                members.append((order, rank))
        number = zlib.crc32(struct.pack("<IQq", self._number, self._sequence, color))
        return Group(self.mesh, [self.ranks[rank] for _, rank in sorted(members)], number)

    def announce(self, number: int, payload: bytes) -> None:
        """On root rank 0: send `payload` to every rank under a `number` higher than before, which becomes the control word."""
        mesh = self.mesh
        assert mesh.rank == 0, "only root rank 0 announces"
        mesh.check()
        mesh.announcements[number] = bytes(payload)
        mesh.heed(number)
        channel = mesh.channel
        flags = SUMMED if channel.summed else 0
        header = mesh.header(
            CONTROL, 0, number, flags=flags, length=len(payload), checksum=channel.checksum(payload)
        )
        peers = [peer for peer in range(1, mesh.size) if peer not in channel.lost]
        channel.send(peers, header, bytes(payload), f"room to send announcement {number}")

    def await_announcement(self, number: int) -> bytes:
        """Return announcement `number`, reading from rank 0 until it is here."""
        mesh = self.mesh
        mesh.check()
        channel = mesh.channel
        channel.blocked = 0.0
        start = perf_counter()
        try:
            while number not in mesh.announcements:
                if mesh.rank == 0:
                    raise CommError(f"announcement {number} was never made", rank=0, step=mesh.step)
                channel.put_next_aside(0, f"announcement {number}")
        finally:
            mesh.meter.account(perf_counter() - start, channel.blocked, channel.blocker)
        return mesh.announcements[number]

    def abort(self, reason: str) -> None:
        """From any thread, at any time: every call on this rank's groups, now or later, raises `Aborted` with `reason`.

        The other ranks see this one leave.
        """
        self.mesh.abort(reason)

    def close(self) -> None:
        """Close all links of this rank, end its thread, forget its segments; can be called again."""
        self.mesh.close()
        self._stage = None
        self._rooms.clear()

    def __enter__(self) -> Group:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Group rank {self.rank} of {self.size}, run {self.run:x}, generation {self.generation}>"
