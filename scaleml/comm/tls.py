"""A link under TLS."""

from __future__ import annotations

import select
import ssl
from typing import Any, final

from .link import INLINE, Link, LinkClosed


@final
class TLSLink(Link):
    """A non-blocking SSL socket, used by one thread only; TLS authenticates every record, so payloads carry no sum."""

    sums = False

    def __init__(self, sock: ssl.SSLSocket, rank: int, peer: int, run: int, generation: int, timeout: float) -> None:
        super().__init__(sock, rank, peer, run, generation)
        sock.setblocking(False)
        self._ssl = sock
        self._milliseconds = timeout * 1e3
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)

    def pending(self) -> bool:
        return self._ssl.pending() > 0

    def receive(self, view: memoryview, block: bool) -> int:
        while True:
            try:
                got = self._ssl.recv_into(view)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                if block and self._poll.poll(self._milliseconds):
                    continue
                return 0
            except (OSError, ValueError) as error:
                raise LinkClosed from error
            if not got:
                raise LinkClosed
            self.meter.bytes_received += got
            return got

    def send(self, header: bytes | memoryview, payload: Any) -> int:
        small = len(payload) and memoryview(payload).nbytes <= INLINE
        parts = (b"".join((header, payload)),) if small else (header, payload)
        sent = 0
        for part in parts:
            view = memoryview(part).cast("B") if len(part) else memoryview(b"")
            while len(view):
                try:
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
