"""How ranks find each other: every rank listens, then dials every lower one."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Sequence
from time import monotonic

from .errors import CommError, HandshakeError
from .group import Group
from .handshake import Hello, Refused, dial
from .hosts import build
from .listener import HANDSHAKE_SECONDS, Listener
from .mesh import OnStall

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
) -> Group:
    """Link this rank to all others and return its group; the listener is closed in any case.

    Parameters
    ----------
    book : sequence of (host, port)
        Every rank's ``Listener.address``, in rank order.
    deadline_s : float
        Seconds within which all links must stand.
    timeout : float
        Seconds without a sign of a peer after which a wait of the group asks `on_stall`, or fails.
    tls : ssl.SSLContext, optional
        The client's side; must be given if the listeners have one.
    scratch : str, optional
        A folder for shared memory where ``/dev/shm`` has no room.

    Raises
    ------
    HandshakeError
        If links are missing at the deadline: names the ranks and their addresses.
    Aborted
        If ``listener.abort`` was called.
    """
    deadline = monotonic() + deadline_s
    size = len(book)
    reasons: dict[int, str] = {}
    dialled: dict[tuple[int, int], socket.socket] = {}
    taken: dict[tuple[int, int], socket.socket] = {}

    def reach(peer: int) -> None:
        for channel in range(_CHANNELS):
            sock = _dial(listener, book[peer], Hello(listener.run, listener.generation, rank, peer, channel), tls, deadline, reasons)
            if sock is None:
                return
            dialled[peer, channel] = sock

    threads = [threading.Thread(target=reach, args=(peer,), name=f"scaleml-dial-{peer}", daemon=True) for peer in range(rank)]
    try:
        for thread in threads:
            thread.start()
        missing = listener.wait({(peer, c) for peer in range(rank + 1, size) for c in range(_CHANNELS)}, deadline)
        for thread in threads:
            thread.join()
        listener.check()
        absent = sorted({peer for peer, _ in missing} | {peer for peer in range(rank) if (peer, 1) not in dialled})
        if absent:
            raise _missing(rank, absent, book, deadline_s, reasons)
        taken = listener.take()
    finally:
        listener.close()
        if not taken and size > 1 and len(dialled) < (size - 1) * _CHANNELS:
            for sock in dialled.values():
                sock.close()
    dialled.update(taken)
    sockets = [[dialled.get((peer, channel)) for peer in range(size)] for channel in range(_CHANNELS)]
    try:
        return build(sockets, rank, size, listener.run, listener.generation, timeout, on_stall, scratch, shared_memory)
    except CommError as error:
        raise HandshakeError(f"rank {rank} lost a peer while the group was made: {error}", rank=rank, peer=error.peer) from error


def _dial(
    listener: Listener,
    address: Address,
    hello: Hello,
    tls: ssl.SSLContext | None,
    deadline: float,
    reasons: dict[int, str],
) -> socket.socket | None:
    """One link, tried again until the deadline."""
    while listener.reason is None and (left := deadline - monotonic()) > 0:
        sock: socket.socket | None = None
        try:
            sock = _connected(listener, address, min(left, HANDSHAKE_SECONDS))
            if tls is not None:
                plain, sock = sock, tls.wrap_socket(
                    sock, server_hostname=address[0] if tls.check_hostname else None, do_handshake_on_connect=False
                )
                listener.unguard(plain)
                listener.guard(sock)
                sock.do_handshake()
            dial(sock, listener.token, hello)
            return sock
        except (OSError, ValueError, Refused) as error:
            reasons[hello.target] = str(error)
            if sock is not None:
                sock.close()
            listener.pause(min(_RETRY_SECONDS, max(deadline - monotonic(), 0)))
        finally:
            if sock is not None:
                listener.unguard(sock)
    return None


def _connected(listener: Listener, address: Address, seconds: float) -> socket.socket:
    family, kind, protocol, _, target = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)[0]
    sock = socket.socket(family, kind, protocol)
    listener.guard(sock)
    try:
        sock.settimeout(seconds)
        sock.connect(target)
    except OSError:
        listener.unguard(sock)
        sock.close()
        raise
    return sock


def _missing(rank: int, absent: list[int], book: Sequence[Address], seconds: float, reasons: dict[int, str]) -> HandshakeError:
    names = ", ".join(
        f"rank {peer} at {book[peer][0]}:{book[peer][1]} ({reasons.get(peer, 'it never called')})" for peer in absent
    )
    return HandshakeError(
        f"rank {rank} has no link after {seconds:g} s to {names}. Are these ranks running, is another task in their way, "
        "and may these workers reach each other (firewall)?",
        rank=rank, peer=absent[0], missing=tuple(absent),
    )  # fmt: skip
