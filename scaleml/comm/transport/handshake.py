"""Both ends of a new connection prove that they know the run's token, without sending it."""

from __future__ import annotations

import hmac
import secrets
import socket
import struct
from collections.abc import Generator
from typing import NamedTuple

from scaleml.clock import WALL

MAGIC = b"SMLHELO\x01"
NONCE = 16
_HELLO = struct.Struct(f"<8sQIIIB{NONCE}s")
_PROOF = 32
_WELCOME = b"\1"


class Hello(NamedTuple):
    """Who calls whom, and for which of their two links."""

    run: int
    generation: int
    source: int
    target: int
    channel: int


class Refused(Exception):
    """The other end is not who it should be."""


def dial(sock: socket.socket, token: bytes, hello: Hello, deadline: float) -> None:
    """Introduce ourselves on a connected socket, until `deadline` (of the wall clock).

    Raises
    ------
    Refused
        If the other end does not know the token, or does not want us.
    """
    raw = _HELLO.pack(MAGIC, *hello, secrets.token_bytes(NONCE))
    sock.sendall(raw)
    answer = _read(sock, NONCE + _PROOF, deadline)
    nonce, proof = answer[:NONCE], answer[NONCE:]
    if not hmac.compare_digest(proof, _prove(token, b"acceptor", raw + nonce)):
        raise Refused("it does not know this run's token")
    sock.sendall(_prove(token, b"dialler", raw + nonce))
    if _read(sock, 1, deadline) != _WELCOME:
        raise Refused("it did not welcome us")


def accept(token: bytes) -> Generator[tuple[bytes, int], bytes, Hello]:
    """Check who calls, as a conversation: yields what to send and how many bytes then to read, is sent these, returns who it is.

    The caller then has to `welcome`.

    Raises
    ------
    Refused
        If it is not one of us.
    """
    raw = yield b"", _HELLO.size
    magic, *fields, _ = _HELLO.unpack(raw)
    if magic != MAGIC:
        raise Refused("it does not speak this protocol")
    nonce = secrets.token_bytes(NONCE)
    proof = yield nonce + _prove(token, b"acceptor", raw + nonce), _PROOF
    if not hmac.compare_digest(proof, _prove(token, b"dialler", raw + nonce)):
        raise Refused("it does not know this run's token")
    return Hello(*fields)


def welcome(sock: socket.socket) -> None:
    """Tell the dialler that its link is taken."""
    sock.sendall(_WELCOME)


def _prove(token: bytes, role: bytes, transcript: bytes) -> bytes:
    return hmac.digest(token, role + transcript, "sha256")


def _read(sock: socket.socket, size: int, deadline: float) -> bytes:
    data = b""
    while len(data) < size:
        sock.settimeout(max(deadline - WALL.now(), 1e-3))  # all of it, so that nobody holds us up byte by byte
        more = sock.recv(size - len(data))
        if not more:
            raise Refused("it hung up")
        data += more
    return data
