"""Memory shared by the ranks of one host: a mapped file, without a name once all who share it have opened it."""

from __future__ import annotations

import errno
import mmap
import os
import stat
from pathlib import Path
from typing import final

import numpy as np
from numpy.typing import DTypeLike

from scaleml import owned_files
from scaleml.arrays import Array


def folders(scratch: str | None) -> list[Path]:
    """Where a segment may lie, best first."""
    return [owned_files.MEMORY] + ([Path(scratch)] if scratch else [])


@final
class Segment:
    """A mapped file of `nbytes` bytes; use `create` or `open`.

    Attributes
    ----------
    path : str
        The file's name, as long as it has one.
    named : bool
        Whether it is ours, and its file still has a name.
    address : int
        Where its first byte lies in this process.
    """

    __slots__ = ("_bytes", "address", "named", "nbytes", "path")

    def __init__(self, path: str, descriptor: int, nbytes: int, owned: bool) -> None:
        flags = mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0)  # the page faults now, not in the first step
        self.path = path
        self.nbytes = nbytes
        # The arrays keep the map alive: it is unmapped with the last of them.
        self._bytes = np.frombuffer(mmap.mmap(descriptor, nbytes, flags), np.uint8)
        self.address = int(self._bytes.ctypes.data)
        self.named = owned

    @classmethod
    def create(cls, nbytes: int, scratch: str | None = None) -> Segment | None:
        """Make a segment of `nbytes` > 0 bytes; None where no folder has room for it."""
        for folder in folders(scratch):
            try:
                path, descriptor = owned_files.create("memory", folder)
            except OSError:
                continue
            try:
                _allocate(descriptor, nbytes)
                return cls(path, descriptor, nbytes, owned=True)
            except (OSError, ValueError):
                owned_files.remove(path)
            finally:
                os.close(descriptor)  # the map has one of its own, and so the file's lock
        return None

    @classmethod
    def open(cls, path: str) -> Segment:
        """Map a peer's segment.

        Raises
        ------
        OSError
            If it is not there (another host or container), or is not a segment's file of this user.
        """
        if not os.path.basename(path).startswith(owned_files.PREFIX):
            raise OSError(errno.EINVAL, "not a segment", path)
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_mode & 0o077 or status.st_uid != os.getuid():
                raise OSError(errno.EPERM, "not a private file of this user", path)
            return cls(path, descriptor, status.st_size, owned=False)
        finally:
            os.close(descriptor)

    def unlink(self) -> None:
        """Take the file's name away; the memory stays as long as somebody maps it."""
        if self.named:
            self.named = False
            owned_files.remove(self.path)

    def array(self, dtype: DTypeLike, count: int, offset: int = 0) -> Array:
        """`count` items from byte `offset` on, as a one-dimensional array that shares the memory.

        Raises
        ------
        ValueError
            If they do not lie in the segment.
        """
        return np.frombuffer(self._bytes.data, dtype, count, offset)

    def offset(self, array: Array) -> int | None:
        """At which byte a contiguous array lies, None if not (wholly) in here."""
        start = int(array.__array_interface__["data"][0]) - self.address
        return start if 0 <= start <= self.nbytes - array.nbytes else None


def _allocate(descriptor: int, nbytes: int) -> None:
    # Without room now, a later write would be a SIGBUS.
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, nbytes)
        return
    os.ftruncate(descriptor, nbytes)
    free = os.fstatvfs(descriptor)
    if free.f_bavail * free.f_frsize < nbytes:
        raise OSError(errno.ENOSPC, "no room for a segment of this size")
