"""Owned files: all that this package puts into a host's ``/dev/shm`` and temporary folder bears its owner's name, and goes with it.

A name says who made it: this boot of which host, in which namespace of process numbers, when that process began, and its
number. Its owner also holds a lock on it, which the kernel takes back when the last descriptor closes: a forked child, or a process
of another container that shares the folder, still has it then.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import shutil
import stat
import struct
import tempfile
import uuid
import weakref
from collections.abc import Callable
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Final, final

import psutil

PREFIX: Final = "scaleml-"
"""What the name of everything begins with."""
MEMORY: Final = Path("/dev/shm")

_NAME: Final = re.compile(
    rf"(?P<semaphore>sem\.)?{PREFIX}[a-z]+-(?P<boot>\w+)-(?P<namespace>\d+)-(?P<start>\d+)-(?P<pid>\d+)-\w+"
)
_LOCK: Final = struct.Struct("@hhqqi4x")  # struct flock: type, whence, start, length, pid
_SET, _GET = getattr(fcntl, "F_OFD_SETLK", None), getattr(fcntl, "F_OFD_GETLK", None)
_AGE: Final = 60.0
"""Seconds: where nobody can ask for the owner, the lock of what is younger may be about to be taken."""


def folders() -> list[Path]:
    """Return where files may lie, best first: memory, then the disk for temporary files."""
    memory = [MEMORY] if MEMORY.is_dir() and os.access(MEMORY, os.W_OK) else []
    return [*memory, Path(tempfile.gettempdir())]


def create(kind: str, folder: Path) -> tuple[str, int]:
    """Make an empty file that nobody else may read; return its path and its descriptor, which holds its lock.

    Raises
    ------
    OSError
        If the folder takes none.
    """
    path = folder / _new_name(kind)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    _claim(descriptor)
    return str(path), descriptor


def remove(path: str) -> None:
    """Take a file's or folder's name away if it is this very process's: a forked child's end is not its parent's."""
    owner = _NAME.fullmatch(os.path.basename(path))
    if owner is not None and int(owner["pid"]) == os.getpid():
        _remove(path)


def stem(kind: str) -> str:
    """Return how names of this process begin, for what other libraries name further."""
    return f"{PREFIX}{kind}-{_owner(os.getpid())}"


def sweep() -> None:
    """Remove what this user's processes have left that are gone.

    What a living process has made or holds stays, in whatever container it runs; so does what is another user's, a link, or of another
    boot: a folder on a network may serve several hosts.
    """
    started = cache(_start)  # many files have one owner
    for folder in folders():
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                if owner := _NAME.fullmatch(entry.name):
                    with contextlib.suppress(OSError):  # gone meanwhile
                        if _is_abandoned(entry, owner, started):
                            _remove(entry.path)


@cache
def boot_id() -> str:
    """Return what tells hosts apart, and one host's boots: processes with different ones cannot share memory."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return f"{uuid.getnode():012x}"


@final
class OwnedFolder:
    """A folder of mode 0700 in that for temporary files, removed when closed, when collected, or at exit.

    What others have left is swept when it comes, and when it goes.
    """

    def __init__(self, kind: str) -> None:
        sweep()
        self.path: Final = folders()[-1] / _new_name(kind)
        self.path.mkdir(mode=0o700)
        descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        _claim(descriptor)
        with contextlib.suppress(OSError):  # as those ask that remove old temporary files, however long it has stood
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        self._finalizer = weakref.finalize(self, _let_go, str(self.path), descriptor)

    def close(self) -> None:
        """Remove it, with all that is in it."""
        self._finalizer()


def _let_go(path: str, descriptor: int) -> None:
    os.close(descriptor)
    remove(path)
    sweep()


def _new_name(kind: str) -> str:
    return f"{stem(kind)}-{secrets.token_hex(8)}"


@cache
def _owner(pid: int) -> str:
    return owner_of(pid)


def owner_of(pid: int) -> str:
    """Return the name of a process of this host that no other has, of whatever host, container or time; its start is 0 if it is gone."""
    return f"{boot_id()[:8]}-{_namespace()}-{_start(pid) or 0}-{pid}"


def owner_parts(owner: str) -> tuple[str, str, str, str]:
    """Return boot, namespace of process numbers, start and number of the process that `owner_of` has named."""
    boot, namespace, start, pid = owner.split("-")
    return boot, namespace, start, pid


@cache
def _namespace() -> int:
    """Return which numbers this process's is one of: containers may share a folder, but number their processes apart."""
    try:
        return os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return 0


def _start(pid: int) -> int | None:
    """Return when a process began, as its system counts; None for one that is gone, if only its parent has not noticed yet."""
    if not os.path.exists("/proc/self/stat"):
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            return None if process.status() == psutil.STATUS_ZOMBIE else int(process.create_time())
        return None
    try:
        state, *numbers = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if state in b"ZX" else int(numbers[18])


def _is_abandoned(entry: os.DirEntry[str], owner: re.Match[str], started: Callable[[int], int | None]) -> bool:
    is_near = int(owner["namespace"]) == _namespace()
    if owner["boot"] != boot_id()[:8] or (is_near and started(int(owner["pid"])) == int(owner["start"])):
        return False
    status = entry.stat(follow_symlinks=False)
    if status.st_uid != os.geteuid() or not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        return False
    if is_near:
        return not _is_held(entry.path, unknown=False)
    age = datetime.now().timestamp() - status.st_mtime
    return age > _AGE and not owner["semaphore"] and not _is_held(entry.path, unknown=True)


def _claim(descriptor: int) -> None:
    if _SET is not None:
        with contextlib.suppress(OSError):  # a file system without locks: there names must do
            fcntl.fcntl(descriptor, _SET, _LOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0))


def _is_held(path: str, unknown: bool) -> bool:
    """Return whether anybody has a claim; ``unknown`` where the system or the file system cannot tell."""
    if _GET is None:
        return unknown
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = fcntl.fcntl(descriptor, _GET, _LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
        return bool(_LOCK.unpack(found)[0] != fcntl.F_UNLCK)
    except OSError:
        return unknown
    finally:
        os.close(descriptor)


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path, ignore_errors=True)
        else:
            os.unlink(path)
