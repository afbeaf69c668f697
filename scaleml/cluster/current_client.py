"""The current Dask client: one of the user's, or that of the task that asks; and what a client must be to be used."""

from __future__ import annotations

import os
import sys
import weakref
from typing import TYPE_CHECKING, Final, cast

from distributed import Client, get_client

if TYPE_CHECKING:
    from tornado.platform.asyncio import BaseAsyncIOLoop


def current_client() -> Client | None:
    """Return the current client; None where there is none that works in this process."""
    try:
        client = get_client()
    except ValueError:
        return None
    return None if is_of_parent(client) else client


def has_client() -> bool:
    """Whether there is a current Dask client: one of the user's, or that of the task this is called from."""
    return current_client() is not None


def check_client(client: object) -> None:
    """Raise TypeError or ValueError for anything but a connected client of this process or None."""
    if client is None:
        return
    if not isinstance(client, Client):
        raise TypeError(
            f"client={client!r}: must be a distributed.Client, or None for the current one or an embedded cluster; "
            "for a scheduler's address pass distributed.Client(address)"
        )
    if is_of_parent(client):
        raise ValueError(
            f"client={client!r} was made by the process that this one was forked from, and has no connection here: make one of this "
            "process's own, distributed.Client(address)"
        )
    if client.asynchronous:
        raise ValueError(f"client={client!r} is asynchronous: pass a client made with asynchronous=False")
    if client.status == "connecting":
        raise ValueError(
            f"client={client!r} has lost its scheduler and tries to reach it again: start once its status is 'running', or make a new "
            "distributed.Client"
        )
    if client.status != "running":
        raise ValueError(f"client={client!r} is {client.status}: make a new distributed.Client, or pass client=None")


def is_of_parent(client: Client) -> bool:
    """Whether a client is the copy that a fork has left: its event loop says that it runs, but the thread of that is not there."""
    if client in _of_parent:
        return True
    # Of a fork before this module was imported: threads are known by their numbers, which may have been given anew.
    loop = cast("BaseAsyncIOLoop", client.loop).asyncio_loop
    thread = getattr(loop, "_thread_id", None)
    return thread is not None and thread not in sys._current_frames()


def _leave_to_parent() -> None:
    _of_parent.update(Client._instances)


_of_parent: Final[weakref.WeakSet[Client]] = weakref.WeakSet()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)
