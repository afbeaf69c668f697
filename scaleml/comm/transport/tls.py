"""A link under TLS."""

from __future__ import annotations

import select
import socket
import ssl
import threading
from typing import final

from scaleml.comm.conventions import INLINE
from scaleml.comm.transport.frame import Payload
from scaleml.comm.transport.link import Link, LinkClosed

_SPOILED = b"\x17\x03\x03\x00\x20" + bytes(32)
"""A record of application data that nobody authenticated."""


@final
class TLSLink(Link):
    """A non-blocking SSL socket, which one thread uses at a time; TLS authenticates every record, so payloads carry no sum."""

    sums = False

    def __init__(self, sock: ssl.SSLSocket, rank: int, peer: int, run: int, generation: int, timeout: float) -> None:
        super().__init__(sock, rank, peer, run, generation)
        sock.setblocking(False)
        self._ssl = sock
        self.set_timeout(timeout)
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self._turn = threading.Lock()  # a bad link's frames are written by a thread of their own

    def set_timeout(self, timeout: float) -> None:
        self._milliseconds = timeout * 1e3

    def pending(self) -> bool:
        return self._ssl.pending() > 0

    def receive(self, view: memoryview, block: bool) -> int:
        while True:
            try:
                with self._turn:
                    got = self._ssl.recv_into(view)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                if block and self._poll.poll(self._milliseconds):
                    continue
                return 0
            except ssl.SSLError as error:
                reason = error.reason or ""
                if "BAD_RECORD_MAC" in reason and "ALERT" not in reason:  # an alert: it got ours altered
                    raise self.corrupt("its record does not match its authentication code", -1) from None
                raise LinkClosed from error
            except (OSError, ValueError) as error:
                raise LinkClosed from error
            if not got:
                raise LinkClosed
            return got

    def send(self, header: bytes | memoryview, payload: Payload) -> int:
        small = len(payload) and memoryview(payload).nbytes <= INLINE
        parts = (b"".join((header, payload)),) if small else (header, payload)
        sent = 0
        for part in parts:
            view = memoryview(part).cast("B") if len(part) else memoryview(b"")
            while len(view):
                try:
                    with self._turn:
                        went = self._ssl.send(view)
                except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
                    went = 0
                except (OSError, ValueError) as error:
                    raise LinkClosed from error
                if not went:
                    self.meter.bytes_sent += sent
                    return sent
                sent += went
                view = view[went:]
        self.meter.bytes_sent += sent
        return sent

    def write(self, data: bytes) -> None:
        view, room = memoryview(data), select.poll()
        room.register(self._ssl, select.POLLOUT)
        while view:
            try:
                with self._turn:
                    view = view[self._ssl.send(view) :]
            except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
                room.poll(self._milliseconds)
            except (OSError, ValueError) as error:
                raise LinkClosed from error

    def spoil(self) -> bool:
        socket.socket.sendall(self._ssl, _SPOILED)
        return True
