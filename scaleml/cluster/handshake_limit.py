"""Handshake limit: preloaded into the embedded cluster's own processes: strangers can neither fill their connections nor their logs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from distributed.core import Server
from tornado.iostream import SSLIOStream

AT_ONCE: Final = 256
"""Connections to a process that have not shown their certificate yet."""
SECONDS: Final = 10.0
"""How long one may take for that."""

Handler = Callable[[SSLIOStream, tuple[str, int]], Awaitable[None]]


async def dask_setup(server: Server) -> None:
    """Limit the connections that have not shown a certificate; called by Dask when the process listens."""
    for listener in server.listeners:
        tcp_server = listener.tcp_server  # type: ignore[attr-defined]  # Dask's listener at a TLS address has one
        tcp_server.handle_stream = limited(tcp_server.handle_stream)


def limited(handle: Handler) -> Handler:
    """Return what hands a connection on once its certificate was checked; of too many the oldest is closed."""
    waiting: dict[SSLIOStream, None] = {}  # in order of age

    async def admit(stream: SSLIOStream, address: tuple[str, int]) -> None:
        if len(waiting) >= AT_ONCE:
            oldest = next(iter(waiting))
            del waiting[oldest]
            oldest.close()
        waiting[stream] = None
        timer = asyncio.get_running_loop().call_later(SECONDS, stream.close)
        try:
            await stream.wait_for_handshake()
        except OSError:  # a stranger, not worth a line in the log
            return
        finally:
            timer.cancel()
            waiting.pop(stream, None)
        await handle(stream, address)

    return admit
