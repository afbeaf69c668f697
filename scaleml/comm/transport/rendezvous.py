"""How ranks find each other: every rank listens, then dials every lower one."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Sequence

from scaleml.clock import WALL
from scaleml.comm.communicator import OnStall
from scaleml.comm.errors import HandshakeError
from scaleml.comm.transport import nearby
from scaleml.comm.transport.handshake import Hello, Refused, dial
from scaleml.comm.transport.hosts import build
from scaleml.comm.transport.listener import HANDSHAKE_SECONDS, Listener
from scaleml.comm.transport.socket_communicator import SocketCommunicator
from scaleml.comm.transport.sockets import is_remote, send_at_once

Address = tuple[str, int]
_CHANNELS = 2
_RETRY_SECONDS = 0.05


def connect(
    listener: Listener,
    book: Sequence[Address],
    *,
    rank: int,
    deadline_s: float = 30.0,
    timeout: float = 30.0,
    on_stall: OnStall | None = None,
    tls: ssl.SSLContext | None = None,
    scratch: str | None = None,
    shared_memory: bool = True,
) -> SocketCommunicator:
    """Link this rank to all others and return its group; the listener is closed in any case.

    Parameters
    ----------
    book : sequence of (host, port)
        Every rank's ``Listener.address``, in rank order.
    deadline_s : float
        Seconds within which all links must stand; then again, for each answer while ranks find out who shares a host.
    timeout : float
        Seconds without a sign of a peer after which a wait of the group asks `on_stall`, or fails.
    tls : ssl.SSLContext, optional
        The client's side; must be given if the listeners have one.
    scratch : str, optional
        A folder for shared memory where ``/dev/shm`` has no room.
    shared_memory : bool
        Whether ranks of one host share its memory, and talk over Unix sockets where their listeners do.

    Raises
    ------
    HandshakeError
        If links are missing at the deadline: names the ranks and their addresses.
    Aborted
        If ``listener.abort`` was called.
    """
    links: dict[tuple[int, int], socket.socket] = {}
    group = None
    try:
        _link(listener, book, rank, deadline_s, tls, shared_memory and listener.near, links)
        for sock in links.values():
            listener.guard(sock)
        size = len(book)
        sockets = [[links.get((peer, channel)) for peer in range(size)] for channel in range(_CHANNELS)]
        group = build(
            sockets,
            rank,
            size,
            listener.run,
            listener.generation,
            timeout,
            on_stall,
            scratch,
            shared_memory,
            deadline_s,
        )
        for sock in links.values():
            listener.unguard(sock)
        listener.check()
        return group
    except BaseException:
        if group is not None:
            group.close()
        for sock in links.values():
            sock.close()
        listener.check()  # the cause, if we were aborted
        raise
    finally:
        listener.close()


def _link(
    listener: Listener,
    book: Sequence[Address],
    rank: int,
    seconds: float,
    tls: ssl.SSLContext | None,
    near: bool,
    links: dict[tuple[int, int], socket.socket],
) -> None:
    """Fill `links` with the sockets to all others, by (rank, channel)."""
    deadline = WALL.now() + seconds
    reasons: dict[int, str] = {}

    def reach(peer: int) -> None:
        for channel in range(_CHANNELS):
            hello = Hello(listener.run, listener.generation, rank, peer, channel)
            sock = _dial(listener, book[peer], hello, tls, near, deadline, reasons)
            if sock is None:
                return
            links[peer, channel] = sock

    threads = [
        threading.Thread(target=reach, args=(peer,), name=f"scaleml-dial-{peer}", daemon=True) for peer in range(rank)
    ]
    started = []
    try:
        for thread in threads:
            thread.start()
            started.append(thread)
        higher = {(peer, channel) for peer in range(rank + 1, len(book)) for channel in range(_CHANNELS)}
        missing = {peer for peer, _ in listener.wait(higher, deadline)}
        for thread in threads:
            thread.join()
    except BaseException:  # an interrupt: let go of the diallers
        listener.close()
        for thread in started:
            thread.join()
        raise
    listener.check()
    missing |= {peer for peer in range(rank) if (peer, _CHANNELS - 1) not in links}
    if missing:
        raise _missing(rank, sorted(missing), book, seconds, reasons)
    links.update(listener.take())


def _dial(
    listener: Listener,
    address: Address,
    hello: Hello,
    tls: ssl.SSLContext | None,
    near: bool,
    deadline: float,
    reasons: dict[int, str],
) -> socket.socket | None:
    """One link, tried again until the deadline; with `near` by the second door, if there is one."""
    while not listener.ended and (left := deadline - WALL.now()) > 0:
        sock: socket.socket | None = None
        try:
            sock = _connected(listener, address, min(left, HANDSHAKE_SECONDS), near)
            if tls is not None and is_remote(sock):
                plain, host = sock, address[0] if tls.check_hostname else None
                sock = secure = tls.wrap_socket(plain, server_hostname=host, do_handshake_on_connect=False)
                listener.unguard(plain)
                listener.guard(sock)
                secure.do_handshake()
            dial(sock, listener.token, hello, min(deadline, WALL.now() + HANDSHAKE_SECONDS))
            return sock
        except (OSError, ValueError, Refused) as error:
            reasons[hello.target] = str(error)
            if sock is not None:
                near &= is_remote(sock)  # else it was somebody else's door
                sock.close()
            listener.pause(min(_RETRY_SECONDS, max(deadline - WALL.now(), 0)))
        finally:
            if sock is not None:
                listener.unguard(sock)
    return None


def _connected(listener: Listener, address: Address, seconds: float, near: bool) -> socket.socket:
    if near and (found := nearby.dial(address, listener.token, seconds)) is not None:
        listener.guard(found)
        return found
    family, kind, protocol, _, target = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)[0]
    sock = socket.socket(family, kind, protocol)
    listener.guard(sock)
    try:
        sock.settimeout(seconds)
        sock.connect(target)
        send_at_once(sock)
    except OSError:
        listener.unguard(sock)
        sock.close()
        raise
    return sock


def _missing(
    rank: int, absent: list[int], book: Sequence[Address], seconds: float, reasons: dict[int, str]
) -> HandshakeError:
    names = ", ".join(
        f"rank {peer} at {book[peer][0]}:{book[peer][1]} ({reasons.get(peer, 'it never called')})" for peer in absent
    )
    return HandshakeError(
        f"rank {rank} has no link after {seconds:g} s to {names}. Are these ranks running, is another task in their way, "
        "and may these workers reach each other (firewall)?",
        rank=rank, peer=absent[0], missing=tuple(absent),
    )  # fmt: skip
