"""From connected sockets to a communicator: which ranks share a host is found out by trying."""

from __future__ import annotations

import secrets
import socket
import ssl
from collections.abc import Sequence

from scaleml.comm.communicator import OnStall
from scaleml.comm.errors import PeerLost
from scaleml.comm.meter import Meter
from scaleml.comm.transport.channel import Channel
from scaleml.comm.transport.context import RankContext
from scaleml.comm.transport.link import Link
from scaleml.comm.transport.membership import Membership
from scaleml.comm.transport.mesh import Mesh
from scaleml.comm.transport.plain_link import PlainLink
from scaleml.comm.transport.segment import Segment
from scaleml.comm.transport.socket_communicator import SocketCommunicator
from scaleml.comm.transport.sockets import send_at_once
from scaleml.comm.transport.tls import TLSLink
from scaleml.owned_files import boot_id

_NONCE = 16


def build(
    sockets: Sequence[Sequence[socket.socket | None]],
    rank: int,
    size: int,
    run: int,
    generation: int,
    timeout: float,
    on_stall: OnStall | None,
    scratch: str | None,
    shared_memory: bool,
    patience: float = 30.0,
) -> SocketCommunicator:
    """Make a rank's communicator; collective.

    Parameters
    ----------
    sockets : two sequences of `size` sockets
        To every peer (None at `rank`): for the calling thread, and for the progress thread.
    patience : float
        Seconds for each wait while it is made, where nobody is asked whether to go on.
    """
    context = RankContext(rank, size, run, generation, patience)
    try:
        channel, background = (
            Channel(context, [_link(sock, context, peer) if sock else None for peer, sock in enumerate(ends)], meter)
            for meter, ends in zip((context.meter, Meter(size)), sockets, strict=True)
        )
    except OSError as error:
        for sock in (sock for ends in sockets for sock in ends if sock):
            sock.close()
        raise PeerLost(f"rank {rank} lost a peer while the group was made: {error}", rank=rank) from error
    mesh = Mesh(context, channel, background, scratch)
    communicator = SocketCommunicator(Membership(mesh, range(size), 0))
    try:
        if size > 1:
            mesh.hosts = agree_on_hosts(communicator, shared_memory)
            communicator = SocketCommunicator(Membership(mesh, range(size), 1))
    except BaseException:
        communicator.close()
        raise
    context.meter.reset()
    mesh.limit(timeout, on_stall)
    return communicator


def agree_on_hosts(communicator: SocketCommunicator, shared_memory: bool) -> tuple[int, ...]:
    """Return the number of each rank's host: of one host are those who have one boot id and can read each other's segments."""
    segments = communicator.mesh.segments
    segment = segments.create(_NONCE) if shared_memory else None
    nonce = secrets.token_bytes(_NONCE)
    try:
        own = ""
        if segment is not None:
            segment.array("u1", _NONCE)[:] = list(nonce)
            own = segment.path
        boot, gather = boot_id(), communicator.allgather_bytes
        offers = [tuple(offer.decode().split("\n")) for offer in gather(f"{boot}\n{own}".encode())]
        echo = b"".join(
            _read(path) if their_boot == boot and own and path else bytes(_NONCE) for their_boot, path in offers
        )
        echoes = gather(echo)
    finally:
        if segment is not None:
            segments.unlink(segment)
    at = slice(communicator.rank * _NONCE, (communicator.rank + 1) * _NONCE)
    return hosts_of(gather(bytes(reply[at] == nonce for reply in echoes)))


def hosts_of(heard: Sequence[bytes]) -> tuple[int, ...]:
    """Return the number of each rank's host: that of the first whose ranks have all heard it, and it them.

    Examples
    --------
    >>> hosts_of([bytes([1, 0, 1]), bytes([0, 1, 0]), bytes([1, 0, 1])])
    (0, 1, 0)
    """
    members: list[list[int]] = []
    for rank, mine in enumerate(heard):
        for host in members:
            if all(mine[other] and heard[other][rank] for other in host):
                host.append(rank)
                break
        else:
            members.append([rank])
    return tuple(next(number for number, host in enumerate(members) if rank in host) for rank in range(len(heard)))


def _read(path: str) -> bytes:
    try:
        return Segment.open(path).array("u1", _NONCE).tobytes()
    except (OSError, ValueError):
        return bytes(_NONCE)


def _link(sock: socket.socket, context: RankContext, peer: int) -> Link:
    """Wrap a connected socket, plain or TLS."""
    send_at_once(sock)
    rank, run, generation, timeout = context.rank, context.run, context.generation, context.timeout
    if isinstance(sock, ssl.SSLSocket):
        return TLSLink(sock, rank, peer, run, generation, timeout)
    return PlainLink(sock, rank, peer, run, generation, timeout)
