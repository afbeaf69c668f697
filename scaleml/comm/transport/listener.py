"""Where a rank is dialled by the others, until all links stand."""

from __future__ import annotations

import select
import socket
import ssl
import threading
from typing import final

from scaleml.clock import WALL
from scaleml.comm.errors import Aborted, HandshakeError
from scaleml.comm.transport import nearby
from scaleml.comm.transport.handshake import Hello, Refused, accept, welcome
from scaleml.comm.transport.sockets import send_at_once, wake

HANDSHAKE_SECONDS = 10.0
"""How long a connection may take to introduce itself; others are not held up by it."""

_AT_ONCE = 256  # connections that introduce themselves at the same time


@final
class Listener:
    """Accepts the links of one rank, in the background.

    Parameters
    ----------
    host : str
        The address by which the other ranks reach this process.
    token : bytes
        The run's secret.
    run, generation, rank : int
        For whom calls are taken.
    port_range : (int, int), optional
        Use the first free port of these, both included; by default any free one.
    tls : ssl.SSLContext, optional
        The server's side; all ranks must use TLS then.

    Attributes
    ----------
    address : (str, int)
        Host and port, for the address book.
    rejected : int
        Connections that were closed because they were not one of us.

    Raises
    ------
    HandshakeError
        If no port can be had there; says what to do.
    """

    def __init__(
        self,
        host: str,
        *,
        token: bytes,
        run: int,
        generation: int,
        rank: int,
        port_range: tuple[int, int] | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.run = run
        self.generation = generation
        self.rank = rank
        self.token = token
        self.rejected = 0
        self.reason: str | None = None  # why it was aborted
        self._tls = tls
        self._closed = False
        self._changed = threading.Condition()
        self._links: dict[tuple[int, int], socket.socket] = {}
        self._talking: dict[socket.socket, None] = {}  # in order of age
        self._threads: set[threading.Thread] = set()
        self._bell = socket.socketpair()  # wakes the accepting thread
        try:
            door = _bind(host, port_range, rank)
        except BaseException:
            for end in self._bell:
                end.close()
            raise
        self.address: tuple[str, int] = (host, door.getsockname()[1])
        near = nearby.listen(self.address) if tls is None else None
        self._doors = [door] if near is None else [door, near]
        self._thread = threading.Thread(target=self._accept, name=f"scaleml-listener-{rank}", daemon=True)
        self._thread.start()

    def wait(self, wanted: set[tuple[int, int]], deadline: float) -> set[tuple[int, int]]:
        """Wait until links from all of `wanted`, as (rank, channel), are here; return those that are not."""
        with self._changed:
            while not self.ended and not wanted <= self._links.keys():
                if not self._changed.wait(max(deadline - WALL.now(), 0)) and WALL.now() >= deadline:
                    break
            return wanted - self._links.keys()

    def take(self) -> dict[tuple[int, int], socket.socket]:
        """Hand over the links; later calls are turned away."""
        with self._changed:
            links, self._links = self._links, {}
            return links

    def pause(self, seconds: float) -> None:
        """Wait, but for an abort."""
        with self._changed:
            if not self.ended:
                self._changed.wait(seconds)

    @property
    def ended(self) -> bool:
        """Whether it was aborted or closed."""
        return self._closed or self.reason is not None

    def check(self) -> None:
        """Raise `Aborted` if `abort` was called."""
        if self.reason is not None:
            raise Aborted(f"rank {self.rank} was aborted while the links were made: {self.reason}", rank=self.rank)

    def abort(self, reason: str) -> None:
        """From any thread: make `connect` raise `Aborted`, now or later."""
        with self._changed:
            self.reason = self.reason or reason
            self._changed.notify_all()
            self._ring()

    def guard(self, sock: socket.socket) -> None:
        """Have `abort` and `close` wake whoever blocks on this socket too."""
        with self._changed:
            if not self.ended:
                self._talking[sock] = None
                return
        wake(sock)

    def unguard(self, sock: socket.socket) -> None:
        """The end of `guard`."""
        with self._changed:
            self._talking.pop(sock, None)

    def close(self) -> None:
        """Stop listening, close what was not handed over, end all threads; can be called again."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            self._ring()
            threads = list(self._threads)
        self._thread.join()
        for own in (*self._doors, *self._bell):
            own.close()
        for thread in threads:
            thread.join()
        for sock in self.take().values():
            sock.close()

    def _ring(self) -> None:
        for sock in self._talking:
            wake(sock)
        try:
            self._bell[0].send(b"\0")
        except OSError:  # closed before
            pass

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # --- its threads ----------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        doors = {door.fileno(): door for door in self._doors}
        poll = select.poll()
        for descriptor in (*doors, self._bell[1].fileno()):
            poll.register(descriptor, select.POLLIN)
        while True:
            calls = poll.poll()
            with self._changed:
                if self.ended:
                    return
            for door in (doors[descriptor] for descriptor, _ in calls if descriptor in doors):
                try:
                    sock, _ = door.accept()
                except BlockingIOError:  # the caller hung up first
                    continue
                except OSError:  # out of descriptors: others may become free
                    self.pause(0.1)
                    continue
                self._receive(sock)

    def _receive(self, sock: socket.socket) -> None:
        with self._changed:
            if len(self._talking) >= _AT_ONCE:  # strangers who say nothing: the oldest has had its time
                wake(next(iter(self._talking)))
            self._talking[sock] = None
            thread = threading.Thread(target=self._introduce, args=(sock,), daemon=True)
            try:
                thread.start()
            except RuntimeError:  # out of threads; the caller will try again
                del self._talking[sock]
                sock.close()
                return
            self._threads.add(thread)

    def _introduce(self, plain: socket.socket) -> None:
        sock = plain
        deadline = WALL.now() + HANDSHAKE_SECONDS
        try:
            plain.settimeout(HANDSHAKE_SECONDS)
            send_at_once(plain)
            if self._tls is not None:
                sock = secure = self._tls.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
                self.unguard(plain)
                self.guard(sock)
                secure.do_handshake()
            hello = accept(sock, self.token, deadline)
            if not self._admit(hello, sock):
                raise Refused("it is not of this generation")
        except (OSError, ValueError, Refused):
            wake(sock)
            sock.close()
            with self._changed:
                self.rejected += not self.ended
        finally:
            self.unguard(plain)
            self.unguard(sock)
            with self._changed:
                self._threads.discard(threading.current_thread())

    def _admit(self, hello: Hello, sock: socket.socket) -> bool:
        expected = Hello(self.run, self.generation, hello.source, self.rank, hello.channel)
        if hello != expected or hello.source <= self.rank or hello.channel not in (0, 1):
            return False
        with self._changed:
            if self.ended:
                return False
            welcome(sock)
            older = self._links.pop((hello.source, hello.channel), None)
            if older is not None:  # it dialled again
                older.close()
            self._links[hello.source, hello.channel] = sock
            # Now, not at this thread's end: it is a link from here on, and makes way for no stranger.
            self.unguard(sock)
            self._changed.notify_all()
        return True


def _bind(host: str, port_range: tuple[int, int] | None, rank: int) -> socket.socket:
    low, high = port_range or (0, 0)
    problem: OSError | None = None
    for port in range(low, high + 1):
        sock: socket.socket | None = None
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            sock = socket.socket(family, kind, protocol)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(address)
            sock.listen(512)
            sock.setblocking(False)
            return sock
        except OSError as error:
            problem = error
            if sock is not None:
                sock.close()
    where = f"a port of {low} to {high}" if port_range else "any port"
    raise HandshakeError(
        f"rank {rank} cannot listen on {host}, {where}: {problem}. The host must be an address of this machine by which "
        "the other workers reach it; with a port range, one of its ports must be free",
        rank=rank,
    )
