"""Sockets: what is set on them, asked of them, and done to one that blocks."""

from __future__ import annotations

import os
import socket


def wake(sock: socket.socket) -> None:
    """From any thread: make whatever blocks on this socket return."""
    try:  # not SSLSocket.shutdown, which pulls the SSL object away from under the thread that uses it
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
    except OSError:
        pass


def is_remote(sock: socket.socket) -> bool:
    """Whether the other end may be on another host."""
    return sock.family in (socket.AF_INET, socket.AF_INET6)


def send_at_once(sock: socket.socket) -> None:
    """Have the kernel keep no small frame back until the last one is acknowledged."""
    if is_remote(sock):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def memory_of_host() -> int:
    """Return how many bytes of memory this host has; where it does not say, more than any."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return 1 << 48
