"""What somebody on the wire sees of a run: under TLS nothing; without it, frames and no token."""

from __future__ import annotations

import contextlib
import pickle
import selectors
import socket
import ssl
import threading
from typing import Any

import numpy as np
import pytest

from meeting import TOKEN, listen
from scaleml.comm import connect
from scaleml.comm.transport import handshake
from scaleml.comm.transport.frame import MAGIC

SECRET = b"what nobody else is to know"
NUMBER = np.float32(0.7310585)


class Wire:
    """Stands between those who dial and a listener, and notes what goes by.

    Attributes
    ----------
    address : (str, int)
        Where to dial instead.
    heard : bytearray
        What went, both ways.
    """

    def __init__(self, listener: tuple[str, int], stack: contextlib.ExitStack) -> None:
        self.heard = bytearray()
        self._listener = listener
        self._door = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.address: tuple[str, int] = self._door.getsockname()
        self._bell, self._end = socket.socketpair()
        thread = threading.Thread(target=self._carry, name="wire")
        thread.start()
        stack.callback(self._bell.close)
        stack.callback(thread.join)
        stack.callback(self._bell.send, b"over")

    def _carry(self) -> None:
        with selectors.DefaultSelector() as selector, contextlib.ExitStack() as stack:
            stack.enter_context(self._end)
            selector.register(self._door, selectors.EVENT_READ)
            selector.register(self._end, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    if key.fileobj is self._end:
                        return
                    if key.fileobj is self._door:
                        near = stack.enter_context(self._door.accept()[0])
                        far = stack.enter_context(socket.create_connection(self._listener))
                        selector.register(near, selectors.EVENT_READ, far)
                        selector.register(far, selectors.EVENT_READ, near)
                        continue
                    self._pass_on(key, selector)

    def _pass_on(self, key: selectors.SelectorKey, selector: selectors.BaseSelector) -> None:
        data = b""
        with contextlib.suppress(OSError):
            data = key.fileobj.recv(1 << 16)  # type: ignore[union-attr]
        self.heard += data
        with contextlib.suppress(OSError):
            if data:
                key.data.sendall(data)
                return
            key.data.shutdown(socket.SHUT_WR)
        selector.unregister(key.fileobj)


def talk(group: Any) -> None:
    """Of every way something: bytes, short and long vectors, compressed ones, messages, an announcement, a collective beside."""
    assert group.allgather_bytes(SECRET) == [SECRET] * 2
    for n in (10, 40_000):
        x = np.full(n, NUMBER)
        group.allreduce(x)
        group.allreduce_start(x).wait()
        group.broadcast(np.full(n, NUMBER), 0)
    group.exchange([np.frombuffer(SECRET, np.uint8)] * 2, [np.zeros(len(SECRET), np.uint8) for _ in range(2)], 1)
    group.send(SECRET, 1 - group.rank, tag=1)
    assert group.recv(1 - group.rank, tag=1).payload == SECRET
    if group.rank == 0:
        group.announce(1, SECRET)
    assert group.await_announcement(1) == SECRET


@pytest.mark.parametrize("secure", [True, False])
def test_what_goes_over_the_wire(secure: bool, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    tls = request.getfixturevalue("tls") if secure else (None, None)

    def never(*args: Any, **options: Any) -> None:
        raise AssertionError("a rank unpickles")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, never)
    listeners = [listen(rank, tls=tls[0]) for rank in range(2)]
    errors: list[BaseException] = []
    with contextlib.ExitStack() as stack:
        wires = [Wire(one.address, stack) for one in listeners]
        book = [wire.address for wire in wires]

        def rank(number: int) -> None:
            try:
                options = {"tls": tls[1], "shared_memory": False, "timeout": 20.0}
                with connect(listeners[number], book, rank=number, **options) as group:
                    kinds = {isinstance(link.sock, ssl.SSLSocket) for link in group.mesh.links()}
                    assert kinds == {secure}
                    talk(group)
            except BaseException as error:  # noqa: BLE001 - shown below
                errors.append(error)

        threads = [threading.Thread(target=rank, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not errors
    heard = b"".join(wire.heard for wire in wires)
    assert len(heard) > 40_000 * 4
    known = (SECRET, NUMBER.tobytes() * 10, MAGIC, handshake.MAGIC)
    assert [words in heard for words in known] == [not secure] * len(known)
    assert TOKEN not in heard, "the token itself is never sent"
