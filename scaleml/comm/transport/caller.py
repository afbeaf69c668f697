"""A connection to a listener that has not proved yet who it is: it is heard without waiting, and costs no thread."""

from __future__ import annotations

import select
import socket
import ssl
from typing import final

from scaleml.comm.transport.handshake import Hello, Refused, accept
from scaleml.comm.transport.sockets import send_at_once


@final
class Caller:
    """One connection, from its first byte to its proof.

    Parameters
    ----------
    sock : socket.socket
        Just accepted; it is this object's from now on.
    token : bytes
        The run's secret.
    deadline : float
        Until when it may take, by the wall clock.
    tls : ssl.SSLContext, optional
        The server's side.

    Attributes
    ----------
    sock : socket.socket
        Not blocking; that of TLS, where there is TLS.
    events : int
        What to poll for before the next `hear`.

    Raises
    ------
    OSError, ValueError
        If it has hung up.
    """

    def __init__(self, sock: socket.socket, token: bytes, deadline: float, tls: ssl.SSLContext | None) -> None:
        self.sock = sock
        self.deadline = deadline
        self.events = select.POLLIN
        self._is_secured = tls is None
        self._talk = accept(token)
        _, self._wanted = next(self._talk)
        self._heard = b""
        try:
            sock.setblocking(False)
            send_at_once(sock)
            if tls is not None:
                self.sock = tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        except BaseException:
            sock.close()
            raise

    def hear(self) -> Hello | None:
        """Go on as far as what has come allows; return who it is once that is proved.

        Raises
        ------
        Refused, OSError, ValueError
            If it is not one of us, or has hung up.
        """
        try:
            self._secure()
            while True:
                more = self.sock.recv(self._wanted - len(self._heard))
                if not more:
                    raise Refused("it hung up")
                self._heard += more
                if len(self._heard) == self._wanted:
                    self._answer()
        except StopIteration as end:
            hello: Hello = end.value
            return hello
        except (BlockingIOError, ssl.SSLWantReadError):
            self.events = select.POLLIN
        except ssl.SSLWantWriteError:
            self.events = select.POLLOUT
        return None

    def close(self) -> None:
        """Hang up."""
        self.sock.close()

    def _secure(self) -> None:
        if not self._is_secured:
            assert isinstance(self.sock, ssl.SSLSocket)
            self.sock.do_handshake()
            self._is_secured = True

    def _answer(self) -> None:
        words, self._wanted = self._talk.send(self._heard)
        self._heard = b""
        try:
            sent = self.sock.send(words)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            sent = 0
        if sent < len(words):  # into an empty buffer: it does not read
            raise Refused("it does not listen")
