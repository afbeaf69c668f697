"""A lock of the ranks of one host: the kernel's, on a file. It goes back when its holder dies, and nobody waits for ever."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from typing import Final, final

from scaleml.clock import WALL
from scaleml.comm.transport.context import RankContext
from scaleml.comm.transport.spin import LOOKS

_flock = fcntl.flock
_NOW, _FREE = fcntl.LOCK_EX | fcntl.LOCK_NB, fcntl.LOCK_UN

_NAP: Final = 50e-6
"""Seconds of sleep between two tries: never blocked in the kernel, where nobody could be told that its rank was aborted."""


@final
class FileLock:
    """One rank's handle of a lock; every rank, also of one process, opens its own.

    Parameters
    ----------
    context : RankContext
        Who takes it, and how its waits end.
    path : str
        A file that all may open now; it may lose its name afterwards.

    Raises
    ------
    OSError
        If there is no such lock here: not all file systems have them.
    """

    def __init__(self, context: RankContext, path: str) -> None:
        self._context = context
        self._flock = _flock
        self._descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            self.release()
        except OSError:
            self.close()
            raise

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
        context, now = self._context, WALL.now
        begin = now()
        looks, asked = 1, begin
        while True:
            context.check()
            if looks >= LOOKS:
                WALL.sleep(_NAP)
            try:
                self._flock(self._descriptor, _NOW)
            except BlockingIOError:
                looks += 1
            else:
                return now() - begin
            if now() - asked > context.timeout:
                context.stalled(holder(), "the lock of what it shares", now() - begin)
                asked = now()
