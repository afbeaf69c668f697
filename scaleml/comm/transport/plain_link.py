"""A link without TLS: a blocking TCP or Unix socket."""

from __future__ import annotations

import socket
import struct
from typing import final

from scaleml.comm.transport.frame import Payload
from scaleml.comm.transport.link import Link, LinkClosed
from scaleml.comm.transport.sockets import is_remote


@final
class PlainLink(Link):
    """A blocking TCP or Unix socket; waits end by the kernel's own receive timeout.

    Within a host the kernel copies from memory to memory: like shared memory, a Unix socket's payloads carry no sum.
    """

    def __init__(self, sock: socket.socket, rank: int, peer: int, run: int, generation: int, timeout: float) -> None:
        super().__init__(sock, rank, peer, run, generation)
        sock.settimeout(None)
        self.sums = is_remote(sock)
        self.set_timeout(timeout)
        self._receive_into = sock.recv_into
        self._sendmsg = sock.sendmsg

    def set_timeout(self, timeout: float) -> None:
        microseconds = max(int(timeout * 1e6), 1)
        seconds = struct.pack("ll", *divmod(microseconds, 1_000_000))
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, seconds)

    def pending(self) -> bool:
        return False

    def receive(self, view: memoryview, block: bool) -> int:
        try:
            got = self._receive_into(view, 0, 0 if block else socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise LinkClosed from error
        if not got:
            raise LinkClosed
        return got

    def send(self, header: bytes | memoryview, payload: Payload) -> int:
        try:
            sent = self._sendmsg((header, payload), (), socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise LinkClosed from error
        self.meter.bytes_sent += sent
        return sent

    def write(self, data: bytes) -> None:
        try:
            self.sock.sendall(data)
        except OSError as error:
            raise LinkClosed from error
