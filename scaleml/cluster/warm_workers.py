"""Warm workers: Dask's nanny forks its worker, now and after each loss, from a process that has imported everything. Linux.

`multiprocessing` has that: its "forkserver". Started as usual it would be another Python that imports Dask again; here it is a fork
of the nanny's process before that has a thread or a connection.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from multiprocessing import forkserver
from pathlib import Path

import dask
import distributed.utils

_STATE = ("_forkserver_address", "_forkserver_alive_fd", "_forkserver_pid")
"""What `multiprocessing` (3.11 to 3.13) knows of its server. Where it knows more, workers are spawned as elsewhere."""


def fork_workers_from_here(folder: Path, name: str) -> None:
    """Fork the server that later forks workers from what this process is now, which must have one thread.

    Parameters
    ----------
    folder : Path
        Where its socket may lie: nobody else can enter it.
    name : str
        Of the nanny.
    """
    server = getattr(forkserver, "_forkserver", None)
    if sys.version_info >= (3, 14) or not all(hasattr(server, name) for name in _STATE):
        return
    # A path to a socket may have 107 bytes, and folders for temporary files are sometimes deep.
    place = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    address = f"/proc/self/fd/{place}/{name}.socket"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(address)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        # Who has an end of this is served; without them the server ends.
        ends, alive = os.pipe()
        pid = os.fork()
        if pid == 0:
            _serve(listener, ends, alive)
        os.close(ends)
    for attribute, value in zip(_STATE, (address, alive, pid), strict=True):
        setattr(server, attribute, value)
    dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"})
    # Else Dask imports pandas and more into the nanny, to know what its forkserver should import.
    distributed.utils._forkserver_preload_set = True


def _serve(listener: socket.socket, ends: int, alive: int) -> None:
    os.close(alive)
    try:
        forkserver.main(listener.detach(), ends, [])
    finally:
        os._exit(0)
