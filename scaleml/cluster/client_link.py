"""The client's link to its scheduler: whether it stands, is being made again, is another one now, or will not come back."""

from __future__ import annotations

import socket
from contextlib import closing
from typing import Final, Literal, final

from distributed import Client

from scaleml.clock import WALL
from scaleml.cluster import config

LinkState = Literal["up", "down", "back", "gone"]
_KNOCK: Final = 1.0
"""Seconds between two looks whether anybody still listens at the scheduler's address, and for its answer."""


@final
class ClientLink:
    """Looks at a client's connection, which Dask makes again by itself: then the scheduler has forgotten all that it was asked for.

    Parameters
    ----------
    client : Client
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._comm = client.scheduler_comm
        self._down_since: float | None = None
        self._knocked = 0.0

    def look(self) -> LinkState:
        """Return how it stands; ``"back"`` until `renewed`."""
        client = self._client
        if client.status == "running":
            self._down_since = None
            return "up" if client.scheduler_comm is self._comm else "back"
        if client.status != "connecting":
            return "gone"
        now = WALL.now()
        if self._down_since is None:
            self._down_since = now
        if now > self._down_since + config.seconds("client-timeout"):
            return "gone"
        if now > self._knocked + _KNOCK:
            self._knocked = now
            if client.scheduler is not None and _is_refused(str(client.scheduler.address)):
                return "gone"
        return "down"

    def renewed(self) -> None:
        """Take the connection that is there now for the one that stands."""
        self._comm = self._client.scheduler_comm


def _is_refused(address: str) -> bool:
    """Return whether the host of a scheduler answers that nobody listens there; its silence says nothing."""
    scheme, _, rest = address.partition("://")
    host, _, port = rest.rpartition(":")
    if scheme not in ("tcp", "tls", "ws", "wss") or not port.isdigit():
        return False
    try:
        with closing(socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK)):
            return False
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
