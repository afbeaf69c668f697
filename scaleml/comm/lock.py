"""A lock of the ranks of one host: the kernel's, on a file. It goes back when its holder dies, and nobody waits for ever."""

from __future__ import annotations

import os
from collections.abc import Callable
from time import perf_counter, sleep
from typing import TYPE_CHECKING, Final, final

if TYPE_CHECKING:
    from .mesh import Mesh

_flock: Callable[[int, int], None] | None
try:
    import fcntl

    _flock = fcntl.flock
    _NOW, _FREE = fcntl.LOCK_EX | fcntl.LOCK_NB, fcntl.LOCK_UN
except ImportError:  # Windows
    _flock, _NOW, _FREE = None, 0, 0

LOOKS: Final = 8 if (os.cpu_count() or 1) > 1 else 1
"""How often to try, some 10 us in all, before sleeping: what is done under a lock takes about as long."""
_NAP: Final = 50e-6
"""Seconds of sleep between two tries: never blocked in the kernel, where nobody could be told that its rank was aborted."""


@final
class Lock:
    """One rank's handle of a lock; every rank, also of one process, opens its own.

    Parameters
    ----------
    path : str
        A file that all may open now; it may lose its name afterwards.

    Raises
    ------
    OSError
        If there is no such lock here.
    """

    def __init__(self, mesh: Mesh, path: str) -> None:
        if _flock is None:
            raise OSError("this system has no locks of files")
        self._mesh = mesh
        self._flock = _flock
        self._descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        mesh.locks.append(self)
        self.release()  # not all file systems have them

    def acquire(self, holder: Callable[[], int]) -> float:
        """Take the lock; return for how many seconds that had to wait.

        ``holder`` is asked which rank has it, if it does not come within the timeout.

        Raises
        ------
        PeerTimeout, Aborted
        """
        try:
            self._flock(self._descriptor, _NOW)
        except BlockingIOError:
            return self._wait(holder)
        return 0.0

    def release(self) -> None:
        """Give it back."""
        self._flock(self._descriptor, _FREE)

    def close(self) -> None:
        """Give it up for good; can be called again."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _wait(self, holder: Callable[[], int]) -> float:
        mesh, begin = self._mesh, perf_counter()
        looks, asked = 1, begin
        while True:
            mesh.check()
            if looks >= LOOKS:
                sleep(_NAP)
            try:
                self._flock(self._descriptor, _NOW)
            except BlockingIOError:
                looks += 1
            else:
                return perf_counter() - begin
            if perf_counter() - asked > mesh.timeout:
                mesh.stalled(holder(), "the lock of what it shares", perf_counter() - begin)
                asked = perf_counter()
