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
from scaleml.comm.transport.caller import Caller
from scaleml.comm.transport.handshake import Hello, Refused, welcome
from scaleml.comm.transport.sockets import wake

HANDSHAKE_SECONDS = 10.0
"""How long a connection may take to introduce itself; others are not held up by it."""

_AT_ONCE = 256  # connections of a door that introduce themselves at the same time
_A_TURN = 16  # of those that wait at a door, how many are let in before the others are heard again


@final
class Listener:
    """Accepts the links of one rank, in the background: one thread hears all who call, and waits for none of them.

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
    near : bool, optional
        Whether ranks of this host may come by a Unix socket, without TLS; by default where there is no TLS. All ranks must agree.

    Attributes
    ----------
    address : (str, int)
        Host and port, for the address book.
    near : bool
        As given.
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
        near: bool | None = None,
    ) -> None:
        self.run = run
        self.generation = generation
        self.rank = rank
        self.token = token
        self.near = tls is None if near is None else near
        self.rejected = 0
        self.reason: str | None = None  # why it was aborted
        self._tls = tls
        self._closed = False
        self._changed = threading.Condition()
        self._links: dict[tuple[int, int], socket.socket] = {}
        self._guarded: set[socket.socket] = set()
        self._bell = socket.socketpair()  # wakes the accepting thread
        try:
            door = _bind(host, port_range, rank)
        except BaseException:
            for end in self._bell:
                end.close()
            raise
        self.address: tuple[str, int] = (host, door.getsockname()[1])
        second = nearby.listen(self.address, token) if self.near else None
        self._doors = [_Door(door, tls)] if second is None else [_Door(door, tls), _Door(second, None)]
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
                self._guarded.add(sock)
                return
        wake(sock)

    def unguard(self, sock: socket.socket) -> None:
        """The end of `guard`."""
        with self._changed:
            self._guarded.discard(sock)

    def close(self) -> None:
        """Stop listening, close what was not handed over, end all threads; can be called again."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            self._ring()
        self._thread.join()
        for own in (*(door.sock for door in self._doors), *self._bell):
            own.close()
        for sock in self.take().values():
            sock.close()

    def _ring(self) -> None:
        for sock in self._guarded:
            wake(sock)
        try:
            self._bell[0].send(b"\0")
        except OSError:  # closed before
            pass

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # --- its thread -----------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        poll = select.poll()
        for descriptor in (*(door.sock.fileno() for door in self._doors), self._bell[1].fileno()):
            poll.register(descriptor, select.POLLIN)
        try:
            while True:
                calls = poll.poll(self._patience())
                if self.ended:
                    return
                ready = {descriptor for descriptor, _ in calls}
                for door in self._doors:
                    for descriptor in ready & door.callers.keys():
                        self._hear(door, descriptor, poll)
                    if door.sock.fileno() in ready:
                        self._open(door, poll)
                    self._expire(door, poll)
        finally:
            for door in self._doors:
                for caller in door.callers.values():
                    caller.close()

    def _patience(self) -> float | None:
        """Return the milliseconds until somebody's time is over."""
        deadlines = [next(iter(door.callers.values())).deadline for door in self._doors if door.callers]
        return max(min(deadlines) - WALL.now(), 0) * 1e3 + 1 if deadlines else None

    def _open(self, door: _Door, poll: select.poll) -> None:
        for _ in range(_A_TURN):
            try:
                sock, _ = door.sock.accept()
            except BlockingIOError:  # nobody else waits
                return
            except ConnectionError:  # the caller hung up first
                continue
            except OSError:  # out of descriptors: others may become free
                if not self._refuse_oldest(door, poll):
                    self.pause(0.1)
                return
            if len(door.callers) >= _AT_ONCE:
                self._refuse_oldest(door, poll)
            self._let_in(door, sock, poll)

    def _let_in(self, door: _Door, sock: socket.socket, poll: select.poll) -> None:
        if sock.family == getattr(socket, "AF_UNIX", None) and not nearby.is_same_user(sock):
            self.rejected += 1
            sock.close()
            return
        try:
            caller = Caller(sock, self.token, WALL.now() + HANDSHAKE_SECONDS, door.tls)
        except (OSError, ValueError):
            self.rejected += 1
            return
        descriptor = caller.sock.fileno()
        door.callers[descriptor] = caller
        poll.register(descriptor, caller.events)
        self._hear(door, descriptor, poll)

    def _hear(self, door: _Door, descriptor: int, poll: select.poll) -> None:
        caller = door.callers[descriptor]
        try:
            hello = caller.hear()
            if hello is None:
                poll.modify(descriptor, caller.events)
                return
            if not self._admit(hello, caller.sock):
                raise Refused("it is not of this generation")
        except (OSError, ValueError, Refused):
            self._refuse(door, descriptor, poll)
            return
        del door.callers[descriptor]
        poll.unregister(descriptor)

    def _refuse(self, door: _Door, descriptor: int, poll: select.poll) -> None:
        self.rejected += 1
        poll.unregister(descriptor)
        door.callers.pop(descriptor).close()

    def _refuse_oldest(self, door: _Door, poll: select.poll) -> bool:
        """Make room: the oldest of those who have proved nothing has had its time; False if there is nobody."""
        oldest = next(iter(door.callers), None)
        if oldest is not None:
            self._refuse(door, oldest, poll)
        return oldest is not None

    def _expire(self, door: _Door, poll: select.poll) -> None:
        now = WALL.now()
        while door.callers and next(iter(door.callers.values())).deadline <= now:
            self._refuse_oldest(door, poll)

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
            self._changed.notify_all()
        return True


class _Door:
    """A listening socket, and who came in by it and has proved nothing yet, in order of age."""

    def __init__(self, sock: socket.socket, tls: ssl.SSLContext | None) -> None:
        self.sock = sock
        self.tls = tls
        self.callers: dict[int, Caller] = {}


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
