"""The communicator: ranks that talk to each other, as strategies, codecs, topologies and the runtime know them.

Three things are one: sockets and shared memory (`scaleml.comm.transport`), the same between threads of one process
(`scaleml.comm.inprocess`), and simulated time (`scaleml.comm.simulated`).

Invariants, for whoever implements or uses one:

- Every rank calls the same collectives in the same order with the same lengths, dtypes and codecs; otherwise all get `Mismatch`.
- What a collective sums has the same bits on every rank, and every time for the same number of ranks.
- Messages of one rank under one tag arrive in the order in which they were sent; none is lost, none comes twice.
- Nothing waits for ever: after `timeout` seconds without a sign of a peer, ``on_stall`` decides, or `PeerTimeout` is raised.
- After any error but ``ValueError`` a communicator is good for nothing but `close`; a server may go on after `PeerLost`.
- Wall time inside a call is `meter.wait` (for a peer that was not ready) or `meter.comm` (the rest), by `clock`, without overlap.
- One thread uses a communicator; only `abort` may be called from another one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol, Self, TypeVar

from numpy.typing import DTypeLike

from scaleml.arrays import Array
from scaleml.clock import Clock
from scaleml.comm.meter import Meter

ANY: Final = -1  # as a source: whoever sends first
Data = Array | bytes | bytearray | memoryview
OnStall = Callable[[int, int, str, float], bool]
"""Called as ``on_stall(peer, step, waiting_for, seconds)``; `peer` is -1 for anybody. True: go on waiting."""

Result_co = TypeVar("Result_co", covariant=True)


class Message(NamedTuple):
    """What `Communicator.recv` returns.

    Attributes
    ----------
    source, tag : int
        Who sent it, under which tag.
    sequence, codec : int
        Whatever the sender gave.
    step, control, compute_seconds : int, int, float
        The sender's, when it sent.
    payload : array or bytes
        An array, one-dimensional unless `out` was given; ``bytes`` if bytes were sent.
    """

    source: int
    tag: int
    sequence: int
    step: int
    control: int
    compute_seconds: float
    codec: int
    payload: Array | bytes

    @property
    def array(self) -> Array:
        """The payload of a message that brings an array."""
        if isinstance(self.payload, bytes):
            raise TypeError(f"rank {self.source} sent bytes under tag {self.tag}, where an array was to come")
        return self.payload


class Handle(Protocol[Result_co]):
    """Something that was started; its arrays must not be touched before `wait` returned."""

    def done(self) -> bool:
        """Whether `wait` would return at once."""

    def wait(self) -> Result_co:
        """Wait for the end; return what the blocking form returns, or raise what went wrong."""


class Lock(Protocol):
    """A lock of the ranks of one host; it goes back when its holder dies."""

    def acquire(self, holder: Callable[[], int]) -> float:
        """Take it; return for how many seconds that had to wait. ``holder`` says which rank has it, for the error of a timeout."""

    def release(self) -> None:
        """Give it back."""


class RateLimiter(Protocol):
    """So many bytes a second, for one link or for several together."""

    def book(self, now: float, nbytes: int) -> float:
        """Return when so many bytes, which come now, have gone."""


class LinkEmulation(Protocol):
    """Bad links on purpose: what this rank sends leaves later, slower, altered or not at all. Peers by their root numbers."""

    def shape(self, peer: int, latency: float, rate: RateLimiter | None) -> None:
        """Hold back what goes to `peer`, from now on: by so many seconds, and to so many bytes a second."""

    def corrupt(self, peer: int, part: str) -> None:
        """Flip a bit of the next frame to `peer`, in its "payload" or its "header"."""

    def drop(self, peer: int) -> None:
        """Close the links to `peer`, and raise `PeerLost`: this rank has lost the peer, too."""


class Stamps(Protocol):
    """What a rank's messages say of it, and whether it is to go on; plain attributes, for each step sets or reads them.

    Attributes
    ----------
    step, compute_seconds : int, float
        Set by the caller: its step, and the seconds of its last gradient.
    control, ended : int, bool
        The control word, which rises to the highest that came with anything received; whether `Communicator.check` raises.
    """

    step: int
    compute_seconds: float
    control: int
    ended: bool


class Collectives(Protocol):
    """What ranks do together: all that a topology of `scaleml.comm.collectives` knows of a communicator.

    Attributes
    ----------
    rank, size : int
        This rank's number here, and how many there are.
    hosts : tuple of int
        For each rank the number of its host, from 0 on in the order of their first ranks. Ranks of one host share its memory.
    """

    @property
    def rank(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def hosts(self) -> tuple[int, ...]: ...

    def part(self, rank: int, n: int) -> tuple[int, int]:
        """Return the (start, stop) of the part of `n` items that `rank` owns in `reduce_scatter`."""

    def subset(self, ranks: Sequence[int]) -> Self:
        """Return the communicator of these ranks, this one among them, in this order: made once. All know it, so nothing is sent."""

    def allreduce(self, x: Array, topology: str = "direct") -> None:
        """Sum `x`, contiguous, over the ranks, in place; "direct" is the communicator's own way, in the order of ranks."""

    def reduce(self, x: Array, root: int = 0) -> None:
        """Sum `x` over the ranks, in their order, into that of `root`; the others' is then undefined."""

    def broadcast(self, x: Array, root: int = 0) -> None:
        """Give all ranks the `x` of rank `root`, in place."""

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
        """Send blocks to `dest` and receive as many as it sends from `source`, both at once, each in its order.

        Every pair of ranks that talks so calls it alike; others need not call it. All are contiguous, of one dimension and dtype. What
        comes may only overwrite an outgoing block that it was made of, as a ring's sum is: another one might not be sent yet.

        Parameters
        ----------
        added : int
            So many of the first blocks that come are added to what is in their places; the others take their places.
        ahead : int, optional
            So many of the outgoing blocks go at once, each further one after one more has come: ``outgoing[ahead + i]`` may depend on
            ``incoming[i]``. By default all go at once.
        """


class Communicator(Collectives, Protocol):
    """Ranks that talk to each other; the module's docstring has the invariants.

    Attributes
    ----------
    ranks : tuple of int
        The members by their numbers in the root communicator, which is how errors and the meter name them.
    stamps : Stamps
        What is stamped into all that is sent. It, the meter and the clock are shared by all communicators of a rank.
    step, compute_seconds, control : int, float, int
        The stamps'.
    meter : Meter
        Where the time of calls went, and how many bytes.
    clock : Clock
        What the time is measured by.
    timeout : float
        Seconds without a sign of a peer after which a wait is a stall.
    """

    step: int
    compute_seconds: float
    control: int

    @property
    def ranks(self) -> tuple[int, ...]: ...
    @property
    def stamps(self) -> Stamps: ...
    @property
    def meter(self) -> Meter: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def timeout(self) -> float: ...

    # --- collectives ----------------------------------------------------------------------------------------------

    def allreduce_start(self, x: Array, topology: str = "direct") -> Handle[None]:
        """`allreduce` in the background. What was started runs in that order, the same on all ranks."""

    def reduce_scatter(self, x: Array) -> Array:
        """Sum `x` over the ranks; return this rank's `part`, a view of `x`, whose other parts are then undefined."""

    def reduce_scatter_start(self, x: Array) -> Handle[Array]:
        """`reduce_scatter` in the background; the handle's `wait` returns the part."""

    def allgather(self, x: Array) -> Array:
        """Return all ranks' `x`, which must have one length, as the rows of an array (size, len(x))."""

    def allgather_start(self, x: Array) -> Handle[Array]:
        """`allgather` in the background; the handle's `wait` returns the rows."""

    def allgather_bytes(self, payload: bytes) -> list[bytes]:
        """Return every rank's bytes, of any lengths, in rank order."""

    def barrier(self) -> None:
        """Return when all ranks have called it."""

    def exchange(self, outgoing: Sequence[Array], places: Sequence[Array], items: int, codec: int = 0) -> None:
        """Send ``outgoing[r]`` to every other rank r, and receive what it sends into ``places[r]``; contiguous uint8 arrays."""

    # --- messages -------------------------------------------------------------------------------------------------

    def send(self, x: Data, dest: int, tag: int = 0, sequence: int = 0, codec: int = 0) -> None:
        """Send `x`, a contiguous array or bytes, to rank `dest`.

        What lies in a `buffer` shared with `dest` and is long stays there, and must not be touched until `dest` has answered, in
        the caller's own protocol. Anything else can be reused at once.
        """

    def send_start(self, x: Data, dest: int, tag: int = 0, sequence: int = 0, codec: int = 0) -> Handle[None]:
        """`send` without waiting for room; `x` must be left alone until the handle's `wait` returned."""

    def recv(self, source: int = ANY, tag: int = 0, out: Array | None = None, view: bool = False) -> Message:
        """Receive the next message with `tag` from rank `source`, or from anybody (all get their turn).

        Parameters
        ----------
        out : contiguous array, optional
            Where the payload goes; it must have its dtype and size. By default a fresh array is made.
        view : bool
            Where the data lies in the sender's shared memory, return a read-only view of it instead of a copy.
        """

    def recv_start(self, source: int = ANY, tag: int = 0, out: Array | None = None) -> Handle[Message]:
        """`recv` without waiting; the handle's `wait` returns the message."""

    def poll(self, tag: int = 0, seconds: float = 0.0) -> bool:
        """Return whether a message with `tag` is here, from anybody; wait up to so long for something to come."""

    # --- memory, sub-communicators, commands ---------------------------------------------------------

    def buffer(self, n: int, dtype: DTypeLike = ...) -> Array:
        """Return `n` zeros that the ranks of one host share; collective, but every rank may have its own `n`."""

    def shared_vector(self, n: int, dtype: DTypeLike = ...) -> Array | None:
        """Return `n` zeros that all ranks read and write in the same memory; collective. None, on all, where they share none."""

    def locked_memory(self, nbytes: int) -> tuple[Array, Lock] | None:
        """Return zero bytes that all ranks map, and a lock for writing there; collective. None, on all, where they share none."""

    def split(self, color: int | None, key: int = 0) -> Self | None:
        """Make one communicator of all ranks with the same `color`, ordered by (`key`, rank); collective.

        None for the ranks whose color is None.
        """

    def announce(self, number: int, payload: bytes) -> None:
        """On root rank 0: send `payload` to every rank; `number`, above all earlier ones, becomes the control word."""

    def await_announcement(self, number: int, forever: bool = False) -> bytes:
        """Return announcement `number`, reading from rank 0 until it is here; with `forever` (a pause) without a timeout."""

    def raise_control(self, control: int) -> None:
        """Take over a control word that came another way, if it is higher."""

    # --- how waits end --------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Raise if this rank was aborted or closed: for whoever waits for something else."""

    def stalled(self, peer: int, waiting_for: object, seconds: float) -> None:
        """Ask whether to go on waiting, which has lasted so many seconds; raise `PeerTimeout` if nobody wants to."""

    def emulation(self) -> LinkEmulation:
        """Return the bad links of this rank, to be made worse; from the first call on, frames may be held back."""

    @property
    def is_emulated(self) -> bool:
        """Whether any link was made bad: then something has to be on its way."""

    def abort(self, reason: str) -> None:
        """From any thread, at any time: all calls on this rank's communicators raise `Aborted`; its peers see it leave."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *exception: object) -> None: ...

    def close(self) -> None:
        """Close all links of this rank, end its threads, forget its memory; can be called again."""
