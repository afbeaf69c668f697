"""Messages from one rank to another."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from .channel import ANY, Channel
from .collectives import bytes_of
from .communicator import Message
from .errors import CommError
from .frame import BYTES, CODES, CONTROL, DOORBELL, DTYPES, HELD, MESSAGE, SUMMED, Header, held
from .link import INLINE

if TYPE_CHECKING:
    from .group import Group

Data = np.ndarray | bytes | bytearray | memoryview


def send(group: Group, x: Data, dest: int, tag: int, sequence: int, codec: int) -> None:
    """`Group.send`."""
    start = perf_counter()
    mesh, peer, flags = group.mesh, group.other(dest, "dest"), 0
    mesh.check()
    payload: Any
    if isinstance(x, np.ndarray):
        payload = group.vector(x)
        dtype, length = CODES[payload.dtype], payload.nbytes
        if length > INLINE and (place := mesh.locate(payload, (peer,))) is not None:
            mesh.meter.bytes_sent += length
            if mesh.wires is not None:
                mesh.wires.charge((peer,), length)
            payload = group.memory.doorbell(place, length)
            flags, length = DOORBELL, len(payload)
    else:
        payload = memoryview(x).cast("B") if len(x) else memoryview(b"")
        dtype, length = BYTES, payload.nbytes
    channel = mesh.channel
    header = mesh.header(
        MESSAGE, group.number, sequence, tag=tag, dtype=dtype, flags=flags | (SUMMED if channel.summed else 0),
        codec=codec, length=length, checksum=channel.checksum(payload),
    )  # fmt: skip
    channel.send((peer,), header, payload, "room to send")
    mesh.meter.comm += perf_counter() - start


def recv(group: Group, source: int, tag: int, out: np.ndarray | None, view: bool) -> Message:
    """`Group.recv`."""
    start = perf_counter()
    mesh = group.mesh
    mesh.check()
    peers = group.peers if source == ANY else (group.other(source, "source"),)
    if not peers:
        raise ValueError("a group of one rank receives no messages")
    channel = mesh.channel
    channel.blocked = 0.0
    what = f"a message with tag {tag}"
    try:
        peer, header, payload = channel.message(peers, group.number, tag, what)
        if header.flags >= HELD or mesh.excuse:
            mesh.excuse = held(header)  # so much later is our answer, whether we waited or not
        if header.flags & DOORBELL:
            payload = _rung(group, peer, header, channel.take(peer, what) if payload is None else payload, out, view)
        elif payload is None:
            payload = _read(group, channel, peer, header, out, what)
        else:
            payload = _stored(group, peer, header, payload, out)
    finally:
        mesh.meter.account(perf_counter() - start, channel.blocked, channel.blocker)
    return Message(
        group.of_root[peer], header.tag, header.sequence, header.step, header.control, header.compute_seconds,
        header.codec, payload,
    )  # fmt: skip


def poll(group: Group, tag: int, seconds: float) -> bool:
    """`Group.poll`."""
    mesh = group.mesh
    mesh.check()
    return mesh.channel.find(group.peers, group.number, tag, f"a message with tag {tag}", seconds * 1e3) is not None


def announce(group: Group, number: int, payload: bytes) -> None:
    """`Group.announce`."""
    mesh = group.mesh
    assert mesh.rank == 0, "only root rank 0 announces"
    mesh.check()
    mesh.announcements[number] = payload
    mesh.heed(number)
    channel = mesh.channel
    flags = SUMMED if channel.summed else 0
    header = mesh.header(CONTROL, 0, number, flags=flags, length=len(payload), checksum=channel.checksum(payload))
    channel.send(range(1, mesh.size), header, payload, f"room to send announcement {number}")


def await_announcement(group: Group, number: int, forever: bool) -> bytes:
    """`Group.await_announcement`."""
    mesh = group.mesh
    mesh.check()
    channel = mesh.channel
    channel.blocked = 0.0
    start = perf_counter()
    try:
        while number not in mesh.announcements:
            if mesh.rank == 0:
                raise CommError(f"rank 0 has not made announcement {number}", rank=0, step=mesh.step)
            channel.put_next_aside(0, f"announcement {number}", forever)
    finally:
        mesh.meter.account(perf_counter() - start, channel.blocked, channel.blocker)
    return mesh.announcements[number]


def _read(group: Group, channel: Channel, peer: int, header: Header, out: np.ndarray | None, what: str) -> Any:
    if out is not None:
        _check_out(group, peer, header, out, header.length)
        channel.take(peer, what, bytes_of(out))
        return out
    if header.length <= INLINE:
        return _stored(group, peer, header, bytearray(channel.take(peer, what)), None)
    if header.dtype == BYTES:
        data = bytearray(header.length)
        channel.take(peer, what, memoryview(data))
        return bytes(data)
    dtype = DTYPES[header.dtype]
    array = np.empty(header.length // dtype.itemsize, dtype)
    channel.take(peer, what, bytes_of(array))
    return array


def _stored(group: Group, peer: int, header: Header, payload: bytearray, out: np.ndarray | None) -> Any:
    if out is not None:
        _check_out(group, peer, header, out, len(payload))
        bytes_of(out)[:] = payload
        return out
    return bytes(payload) if header.dtype == BYTES else np.frombuffer(payload, DTYPES[header.dtype])


def _rung(group: Group, peer: int, header: Header, payload: Any, out: np.ndarray | None, view: bool) -> np.ndarray:
    array = group.memory.answer(peer, payload, DTYPES[header.dtype])
    assert array is not None
    group.meter.bytes_received += array.nbytes
    if out is not None:
        _check_out(group, peer, header, out, array.nbytes)
        out.reshape(-1)[:] = array
        return out
    if not view:
        return array.copy()
    array.flags.writeable = False
    return array


def _check_out(group: Group, peer: int, header: Header, out: np.ndarray, nbytes: int) -> None:
    if out.nbytes != nbytes or not out.flags.c_contiguous or (header.dtype and DTYPES[header.dtype] != out.dtype):
        kind = DTYPES[header.dtype] if header.dtype else "bytes"
        raise ValueError(
            f"rank {group.mesh.rank} cannot receive {nbytes} bytes ({kind}) from rank {peer} into an array of "
            f"{out.nbytes} bytes ({out.dtype}): `out` must be contiguous and have the message's dtype and size"
        )
