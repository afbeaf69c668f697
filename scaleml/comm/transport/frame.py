"""The frame: a fixed header under its own CRC-32, then raw bytes; nothing in it is ever unpickled. Whom it is for says its key."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from scaleml.arrays import Array
from scaleml.comm.errors import Mismatch
from scaleml.comm.transport.context import RankContext
from scaleml.comm.transport.payload_sum import payload_sum

MAGIC = b"SML\x02"  # the last byte is the version of this layout

# magic, kind, op, codec, dtype | flags, block, tag | run | generation, group | sequence | step | length | control
# | compute seconds | payload sum: what is the same on all links; then the frame's number on one, and the CRC-32 of all of it
_BODY = struct.Struct("<4sBBBBIIIQIIQQQQdQ")
_END = struct.Struct("<II")
_WHOLE = struct.Struct(_BODY.format + "II")
HEADER = _WHOLE.size
_NUMBER_AT = _BODY.size
_HALF = (1 << 32) - 1

# kinds
MESSAGE, COLLECTIVE, CONTROL = KINDS = 1, 2, 3
# flags
SUMMED = 1  # `checksum` is that of the payload
DOORBELL = 2  # the payload says where in the sender's shared memory the data lies
RESULT = 4  # a block on its way back from its owner
ROLE = DOORBELL | RESULT  # what a payload is for, ...
ROLES = {0: "block", DOORBELL: "doorbell", RESULT: "result", ROLE: "doorbell and result"}  # ... and what that is called
# ... and above them, for how long a bad link held the frame back, in units of 10 us
_DELAY_AT = 8
DELAYED = 1 << _DELAY_AT  # flags as high as this: it was
_DELAY_UNIT = 1e-5
_DELAY_MOST = (1 << 24) - 1

Payload = Any
"""What travels behind a header: bytes, a memoryview or a contiguous array, which before Python 3.12 have no type in common."""

BYTES = 0
"""The dtype code of a payload given as ``bytes``."""

DTYPES: dict[int, np.dtype[Any]] = {
    code: np.dtype(name) for code, name in enumerate(("float32", "float64", "int32", "int64", "uint8"), start=1)
}
CODES: dict[np.dtype[Any], int] = {dtype: code for code, dtype in DTYPES.items()}

OPS = (
    "barrier", "allreduce", "broadcast", "allgather", "allgather_bytes", "reduce_scatter", "exchange",
    "ring allreduce", "halving allreduce", "hierarchical allreduce", "reduce", "send_receive",
)  # fmt: skip
(
    BARRIER, ALLREDUCE, BROADCAST, ALLGATHER, ALLGATHER_BYTES, REDUCE_SCATTER, EXCHANGE,
    RING, HALVING, HIERARCHICAL, REDUCE, SEND_RECEIVE,
) = range(len(OPS))  # fmt: skip

CODECS = ("no compression", "FP16", "Int8", "OneBit", "TopK", "RandomK", "PowerSGD")
"""What the codec field of a header stands for; any other number is the caller's own."""


def allreduce_op(topology: str) -> int:
    """Return the number under which frames say how a vector is summed: ranks that take different ways get `Mismatch`."""
    return ALLREDUCE if topology == "direct" else OPS.index(f"{topology} allreduce")


def first_number(sender: int) -> int:
    """Return the number of the first frame that rank `sender` sends on a link; each has one more than the one before.

    No frame has the number that is due but the one that is: not if others were lost, if it came before, or if it is of another
    rank's, which counts from somewhere else.

    Examples
    --------
    >>> first_number(0), next_number(first_number(0)), next_number(0xFFFFFFFF)
    (0, 1, 0)
    """
    return sender * 0x9E3779B1 & _HALF


def next_number(number: int) -> int:
    """Return the number of the frame after one with `number`."""
    return number + 1 & _HALF


class Header(NamedTuple):
    """What stands before every payload; `length` is that of the payload that follows on the socket, in bytes."""

    magic: bytes
    kind: int
    op: int
    codec: int
    dtype: int
    flags: int
    block: int
    tag: int
    run: int
    generation: int
    group: int
    sequence: int
    step: int
    length: int
    control: int
    compute_seconds: float
    checksum: int
    number: int
    crc: int


class Key(NamedTuple):
    """One collective of one group."""

    group: int
    sequence: int
    op: int
    dtype: int
    tag: int  # the number of items, where ranks must have the same
    codec: int = 0  # how they are written

    def __str__(self) -> str:
        op = OPS[self.op] if self.op < len(OPS) else f"operation {self.op}"
        codec = CODECS[self.codec] if self.codec < len(CODECS) else f"codec {self.codec}"
        return f"{op} number {self.sequence} ({self.tag} items, dtype code {self.dtype}, {codec})"

    def fits(self, header: Header, peer: int, context: RankContext) -> bool:
        """Whether a frame from `peer` belongs to it; its control word is heeded.

        Raises
        ------
        Mismatch
            If it belongs to another collective of this group.
        """
        if header.control > context.control:
            context.raise_control(header.control)
        if header.kind != COLLECTIVE or header.group != self.group:
            return False
        theirs = header.group, header.sequence, header.op, header.dtype, header.tag, header.codec
        if theirs != self:
            raise self.mismatch(Key(*theirs), context.rank, context.step, peer, header.step)
        return True

    def mismatch(self, theirs: Key, rank: int, step: int, peer: int, their_step: int) -> Mismatch:
        """Return the error of a rank that is in this one while a peer is in another."""
        return Mismatch(
            f"rank {rank} is in {self} at step {step}, rank {peer} in {theirs} at step {their_step}: "
            "all ranks must call the same collectives in the same order with the same lengths and codecs",
            rank=rank, peer=peer, step=step,
        )  # fmt: skip


# These run with every frame. Of as many fields as there are: half the time of the classes' own ways.
_make = partial(tuple.__new__, Header)
new_key = partial(tuple.__new__, Key)
_pack_end, _unpack, _crc32 = _END.pack, _WHOLE.unpack_from, zlib.crc32


encode: Callable[..., bytes] = partial(_BODY.pack, MAGIC)
"""Packs a `Header`, from its kind to its checksum: what is the same on all links. See `numbered`."""


def numbered(encoded: bytes, number: int) -> bytes:
    """Return all `HEADER` bytes of what `encode` made; its CRC-32 begins with the number.

    Examples
    --------
    >>> raw = numbered(encode(MESSAGE, 0, 0, BYTES, 0, 0, 7, 1, 0, 0, 0, 3, 5, 0, 0.0, 0), 9)
    >>> decode(raw).tag, decode(raw).length, decode(raw).number
    (7, 5, 9)
    """
    return encoded + _pack_end(number, _crc32(encoded, number))


def decode(buffer: bytes | bytearray | memoryview, offset: int = 0) -> Header:
    """Read the header at `offset`.

    Raises
    ------
    ValueError
        If its CRC-32 or its magic is wrong: says which.
    """
    header = _make(_unpack(buffer, offset))
    if _crc32(buffer[offset : offset + _NUMBER_AT], header.number) != header.crc:
        raise ValueError("the header does not match its CRC-32")
    if header.magic != MAGIC:
        raise ValueError(f"the header starts with {header.magic!r}, not with {MAGIC!r}")
    return header


def delay_flags(seconds: float) -> int:
    """Return the flags that say for how long a frame was held back.

    Examples
    --------
    >>> raw = encode(MESSAGE, 0, 0, 0, delay_flags(0.02), 0, 0, 1, 0, 0, 0, 0, 0, 0, 0.0, 0)
    >>> round(delay_of(decode(numbered(raw, 0))), 5)
    0.02
    """
    return min(round(seconds / _DELAY_UNIT), _DELAY_MOST) << _DELAY_AT


def delay_of(header: Header) -> float:
    """Return for how long a frame was held back, in seconds."""
    return (header.flags >> _DELAY_AT) * _DELAY_UNIT


def with_delay(raw: bytes, seconds: float) -> bytes:
    """Return a header that says that its frame was held back for so many seconds more."""
    header = decode(raw)
    total = delay_flags(delay_of(header) + seconds)
    return _changed(header._replace(flags=header.flags & ((1 << _DELAY_AT) - 1) | total))


def with_sum(raw: bytes, payload: bytes) -> bytes:
    """Return a header that says what its payload's sum is."""
    header = decode(raw)
    return _changed(header._replace(flags=header.flags | SUMMED, checksum=payload_sum(payload, len(payload))))


def _changed(header: Header) -> bytes:
    return numbered(encode(*header[1:-2]), header.number)


def flat(x: Array, rank: int) -> Array:
    """Return `x` with one dimension; ``ValueError`` if it cannot travel."""
    if isinstance(x, np.ndarray) and x.dtype in CODES and x.flags.c_contiguous:
        return x if x.ndim == 1 else x.reshape(-1)
    kind = f"{x.dtype} array with strides {x.strides}" if isinstance(x, np.ndarray) else type(x).__name__
    raise ValueError(
        f"rank {rank} cannot send a {kind}: pass a contiguous NumPy array of "
        f"{', '.join(str(dtype) for dtype in DTYPES.values())} (np.ascontiguousarray makes one)"
    )


def size_of(payload: Payload) -> int:
    """Return how many bytes a payload has, given as bytes, a memoryview or an array."""
    return len(payload) if type(payload) is bytes else payload.nbytes


class Frame:
    """A frame that was started, and goes when there is room for it.

    Attributes
    ----------
    gone : bool
        Whether all of it is with the kernel.
    """

    __slots__ = ("gone", "header", "payload")

    def __init__(self, header: bytes, payload: Payload) -> None:
        self.header = header  # not numbered yet: others may go before it
        self.payload = payload
        self.gone = False
