"""From connected sockets to a group: which ranks share a host is found out by trying."""

from __future__ import annotations

import secrets
import socket
import ssl
from collections.abc import Sequence

from .channel import Channel
from .errors import PeerLost
from .group import Group
from .link import Link, PlainLink, send_at_once
from .mesh import Mesh, OnStall
from .meter import Meter
from .progress import Progress
from .segment import Segment, boot_id
from .tls import TLSLink

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
) -> Group:
    """Make a rank's group; collective.

    Parameters
    ----------
    sockets : two sequences of `size` sockets
        To every peer (None at `rank`): for the calling thread, and for the progress thread.
    patience : float
        Seconds for each wait while it is made, where nobody is asked whether to go on.
    """
    mesh = Mesh(rank, size, run, generation, patience, scratch)
    channels = []
    try:
        for meter, ends in zip((mesh.meter, Meter(size)), sockets, strict=True):
            links = [
                _link(sock, rank, peer, run, generation, patience) if sock else None for peer, sock in enumerate(ends)
            ]
            channels.append(Channel(mesh, links, meter))
    except OSError as error:
        for sock in (sock for ends in sockets for sock in ends if sock):
            sock.close()
        raise PeerLost(f"rank {rank} lost a peer while the group was made: {error}", rank=rank) from error
    mesh.channel = channels[0]
    mesh.progress = Progress(mesh, channels[1])
    group = Group(mesh, range(size), 0)
    try:
        if size > 1:
            agree_on_hosts(group, shared_memory)
            group = Group(mesh, range(size), 1)
    except BaseException:
        group.close()
        raise
    mesh.meter.reset()
    mesh.limit(timeout, on_stall)
    return group


def agree_on_hosts(group: Group, shared_memory: bool) -> None:
    """Fill ``mesh.hosts``, alike on all ranks: who has the same boot id and can read the other's nonce from its segment."""
    mesh = group.mesh
    segment = Segment.create(_NONCE, mesh.scratch) if shared_memory else None
    nonce = secrets.token_bytes(_NONCE)
    try:
        own = ""
        if segment is not None:
            mesh.named.add(segment)
            segment.array("u1", _NONCE)[:] = list(nonce)
            own = segment.path
        boot = boot_id()
        offers = [tuple(offer.decode().split("\n")) for offer in group.allgather_bytes(f"{boot}\n{own}".encode())]
        echo = b"".join(
            _read(path) if their_boot == boot and own and path else bytes(_NONCE) for their_boot, path in offers
        )
        echoes = group.allgather_bytes(echo)
    finally:
        if segment is not None:
            segment.unlink()
            mesh.named.discard(segment)
    at = slice(group.rank * _NONCE, (group.rank + 1) * _NONCE)
    heard = group.allgather_bytes(bytes(reply[at] == nonce for reply in echoes))
    for a in range(group.size):
        for b in range(group.size):
            mesh.hosts[a][b] = a == b or bool(heard[a][b] and heard[b][a])


def _read(path: str) -> bytes:
    try:
        return Segment.open(path).array("u1", _NONCE).tobytes()
    except (OSError, ValueError):
        return bytes(_NONCE)


def _link(sock: socket.socket, rank: int, peer: int, run: int, generation: int, timeout: float) -> Link:
    """Wrap a connected socket, plain or TLS."""
    send_at_once(sock)
    if isinstance(sock, ssl.SSLSocket):
        return TLSLink(sock, rank, peer, run, generation, timeout)
    return PlainLink(sock, rank, peer, run, generation, timeout)
