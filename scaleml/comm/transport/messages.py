"""Messages from one rank to another, over the links of a membership."""

from __future__ import annotations

import numpy as np

from scaleml.arrays import Array
from scaleml.clock import WALL
from scaleml.comm.communicator import ANY, Data, Message
from scaleml.comm.conventions import INLINE, bytes_of
from scaleml.comm.errors import CommError
from scaleml.comm.transport.channel import Channel
from scaleml.comm.transport.frame import (
    BYTES,
    CODES,
    CONTROL,
    DELAYED,
    DOORBELL,
    DTYPES,
    MESSAGE,
    RESULT,
    Frame,
    Header,
    Key,
    Payload,
    delay_of,
    flat,
)
from scaleml.comm.transport.membership import Membership

ROOM = "room to send"
"""What a sender waits for."""

_KNOWN = frozenset({BYTES, *DTYPES})
_now = WALL.now


def send(members: Membership, x: Data, dest: int, tag: int, sequence: int, codec: int) -> None:
    """`Communicator.send`."""
    start = _now()
    context = members.context
    peer, header, payload = _frame(members, x, dest, tag, sequence, codec)
    members.mesh.channel.send((peer,), header, payload, ROOM)
    context.meter.comm += _now() - start


def send_start(members: Membership, x: Data, dest: int, tag: int, sequence: int, codec: int) -> Frame:
    """`Communicator.send_start`, but for the handle."""
    start = _now()
    peer, header, payload = _frame(members, x, dest, tag, sequence, codec)
    frame = members.mesh.channel.start(peer, header, payload, ROOM)
    members.context.meter.comm += _now() - start
    return frame


def send_finish(members: Membership, frame: Frame) -> None:
    """Send all of a frame that was started."""
    if frame.gone:
        return
    start = _now()
    context = members.context
    context.check()
    try:
        members.mesh.channel.finish(ROOM, lambda: frame.gone)
    finally:
        context.meter.comm += _now() - start


def _frame(members: Membership, x: Data, dest: int, tag: int, sequence: int, codec: int) -> tuple[int, bytes, Payload]:
    """Return for which peer a frame is, and the frame."""
    context, peer, flags = members.context, members.other(dest, "dest"), 0
    context.check()
    payload: Payload
    if isinstance(x, np.ndarray):
        payload = flat(x, members.rank)
        dtype, length = CODES[payload.dtype], payload.nbytes
        if length > INLINE and (place := members.memory.locate(payload, (peer,))) is not None:
            context.meter.bytes_sent += length
            members.mesh.charge((peer,), length)
            payload = members.memory.doorbell(place, length)
            flags = DOORBELL
    else:
        payload = memoryview(x).cast("B") if len(x) else memoryview(b"")
        dtype = BYTES
    key = Key(members.number, sequence, 0, dtype, tag, codec)
    return peer, members.mesh.channel.header(key, payload, flags, kind=MESSAGE), payload


def recv(members: Membership, source: int, tag: int, out: Array | None, view: bool) -> Message:
    """`Communicator.recv`."""
    start = _now()
    context, channel = members.context, members.mesh.channel
    context.check()
    peers = members.peers if source == ANY else (members.other(source, "source"),)
    if not peers:
        raise ValueError("a group of one rank receives no messages")
    channel.blocked = 0.0
    what = f"a message with tag {tag}"
    try:
        peer, header, payload = channel.message(peers, members.number, tag, what)
        if header.flags >= DELAYED or context.inherited_delay:
            context.inherited_delay = delay_of(header)  # so much later is our answer, whether we waited or not
        if header.flags & RESULT or header.dtype not in _KNOWN:
            raise channel.link(peer).corrupt(
                f"no message has dtype code {header.dtype}, flags {header.flags}", header.step
            )
        if header.flags & DOORBELL:
            doorbell = channel.read_payload(peer, what) if payload is None else payload
            payload = _rung(members, peer, header, doorbell, out, view)
        elif payload is None:
            payload = _read(members, channel, peer, header, out, what)
        else:
            payload = _stored(members, peer, header, payload, out)
    finally:
        context.meter.account(_now() - start, channel.blocked, channel.blocker)
    return Message(
        members.of_root[peer], header.tag, header.sequence, header.step, header.control, header.compute_seconds,
        header.codec, payload,
    )  # fmt: skip


def is_here(members: Membership, source: int, tag: int, seconds: float) -> bool:
    """Whether a message with `tag` from `source` is here, or the next frames within so many seconds bring one."""
    channel = members.mesh.channel
    members.context.check()
    peers = members.peers if source == ANY else (members.other(source, "source"),)
    what = f"a message with tag {tag}"
    if channel.unsent:
        channel.flush(what)
    return channel.find(peers, members.number, tag, what, seconds * 1e3) is not None


def announce(members: Membership, number: int, payload: bytes) -> None:
    """`Communicator.announce`."""
    context = members.context
    assert context.rank == 0, "only root rank 0 announces"
    context.check()
    context.announcements[number] = payload
    context.raise_control(number)
    channel = members.mesh.channel
    header = channel.header(Key(0, number, 0, BYTES, 0), payload, kind=CONTROL)
    channel.send(range(1, context.size), header, payload, f"room to send announcement {number}")


def await_announcement(members: Membership, number: int, forever: bool) -> bytes:
    """`Communicator.await_announcement`."""
    context = members.context
    context.check()
    channel = members.mesh.channel
    channel.blocked = 0.0
    start = _now()
    try:
        if channel.unsent:
            channel.finish(f"announcement {number}", lambda: number in context.announcements)
        while number not in context.announcements:
            if context.rank == 0:
                raise CommError(f"rank 0 has not made announcement {number}", rank=0, step=context.step)
            channel.stash_next(0, f"announcement {number}", forever)
    finally:
        context.meter.account(_now() - start, channel.blocked, channel.blocker)
    return context.announcements[number]


def _read(
    members: Membership, channel: Channel, peer: int, header: Header, out: Array | None, what: str
) -> Array | bytes:
    if out is not None:
        _check_out(members, peer, header, out, header.length)
        channel.read_payload(peer, what, bytes_of(out))
        return out
    if header.length <= INLINE:
        return _stored(members, peer, header, bytearray(channel.read_payload(peer, what)), None)
    room = channel.link(peer).room(header)
    channel.read_payload(peer, what, room)
    return _stored(members, peer, header, room, None)


def _stored(members: Membership, peer: int, header: Header, payload: Payload, out: Array | None) -> Array | bytes:
    if out is not None:
        _check_out(members, peer, header, out, len(payload))
        bytes_of(out)[:] = payload
        return out
    if header.dtype == BYTES:
        return bytes(payload)
    dtype = DTYPES[header.dtype]
    if len(payload) % dtype.itemsize:
        raise members.mesh.channel.link(peer).corrupt(f"{len(payload)} bytes are not {dtype} items", header.step)
    return np.frombuffer(payload, dtype)


def _rung(
    members: Membership, peer: int, header: Header, payload: bytes | memoryview, out: Array | None, view: bool
) -> Array:
    dtype = DTYPES.get(header.dtype)
    array = None if dtype is None else members.memory.answer(peer, payload, dtype)
    if array is None:
        raise members.mesh.channel.link(peer).corrupt("it is a doorbell that says nothing", header.step)
    members.context.meter.bytes_received += array.nbytes
    if out is not None:
        _check_out(members, peer, header, out, array.nbytes)
        out.reshape(-1)[:] = array
        return out
    if not view:
        return array.copy()
    array.flags.writeable = False
    return array


def _check_out(members: Membership, peer: int, header: Header, out: Array, nbytes: int) -> None:
    if out.nbytes != nbytes or not out.flags.c_contiguous or (header.dtype and DTYPES[header.dtype] != out.dtype):
        kind = DTYPES[header.dtype] if header.dtype else "bytes"
        raise ValueError(
            f"rank {members.context.rank} cannot receive {nbytes} bytes ({kind}) from rank {peer} into an array of "
            f"{out.nbytes} bytes ({out.dtype}): `out` must be contiguous and have the message's dtype and size"
        )
