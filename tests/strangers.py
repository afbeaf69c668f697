"""Strangers who call at listeners, all at once and for as long as they are let: what they are told, and that they are hung up on."""

from __future__ import annotations

import contextlib
import secrets
import selectors
import socket
import threading
from collections.abc import Sequence
from typing import Self

from scaleml.comm.transport.handshake import _HELLO, MAGIC, NONCE, Hello

CALLS = 200
ANSWER = NONCE + 32
"""Bytes that anybody is told who says hello: a nonce and a proof, of which nothing follows."""


def hello(run: int = 1) -> bytes:
    return _HELLO.pack(MAGIC, *Hello(run, 0, 1, 0, 0), secrets.token_bytes(NONCE))


WORDS: dict[str, bytes] = {
    "nothing": b"",
    "noise": secrets.token_bytes(5_000),
    "another protocol": b"GET / HTTP/1.1\r\nHost: somebody\r\n\r\n" * 5,
    "a wrong proof": hello() + secrets.token_bytes(32),
    "huge numbers": MAGIC + b"\xff" * 500,
    "half a hello": hello()[:20],
    "TLS with a huge record": b"\x16\x03\x01\xff\xff" + b"\xff" * 2_000,
    "a slow hello": hello(),
}
"""What they say; a slow one says it byte by byte."""


class Strangers:
    """A thread that holds `CALLS` connections to some addresses; in a ``with`` block, at whose beginning all of them stand.

    Attributes
    ----------
    told : list of bytes
        What each has heard.
    hung_up_on : int
        How many are at their end.
    """

    def __init__(self, addresses: Sequence[tuple[str, int]]) -> None:
        self.told: list[bytes] = []
        self.hung_up_on = 0
        self._addresses = addresses
        self._ready, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._call, name="strangers")

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(30)
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()

    def _call(self) -> None:
        with selectors.DefaultSelector() as selector, contextlib.ExitStack() as stack:
            slow: list[tuple[socket.socket, list[int]]] = []
            for number in range(CALLS):
                sock = stack.enter_context(socket.create_connection(self._addresses[number % len(self._addresses)]))
                sock.setblocking(False)
                selector.register(sock, selectors.EVENT_READ, len(self.told))
                self.told.append(b"")
                what = list(WORDS)[number // len(self._addresses) % len(WORDS)]
                if what == "a slow hello":
                    slow.append((sock, list(WORDS[what])))
                else:
                    with contextlib.suppress(OSError):
                        sock.send(WORDS[what])
            self._ready.set()
            # Once they are told to stop, until all have been hung up on: who never is keeps the test from its end.
            while selector.get_map():
                for key, _ in selector.select(0.02):
                    more = b""
                    with contextlib.suppress(OSError):
                        more = key.fileobj.recv(1_000)  # type: ignore[union-attr]
                    self.told[key.data] += more
                    if not more:
                        selector.unregister(key.fileobj)
                        self.hung_up_on += 1
                for sock, left in slow:
                    if left and not self._stop.is_set():
                        with contextlib.suppress(OSError):
                            sock.send(bytes([left.pop(0)]))
