"""What a process holds that a run must give back: threads, sockets, shared-memory segments.

`look` is a plain function, so that a test can also send it to the workers: ``client.run(leaks.look)``.
"""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TypeVar

import cloudpickle
import psutil

# Workers cannot import the tests' folder: what is sent to them travels whole.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

Left = TypeVar("Left", "Residue", set[str])

ROOT = "SCALEML_TESTS_ROOT"
"""In the environment: the process id of the pytest whose children's segments count."""
os.environ[ROOT] = str(os.getpid())

# Pools that Dask and tornado grow whenever they like and keep until their process ends.
DASK_THREADS = ("Dask-", "IO loop", "Profile", "TCP-Executor", "ThreadPoolExecutor", "AsyncProcess", "asyncio_")


@dataclass(frozen=True)
class Residue:
    """What one process holds at one moment; `minus` leaves what came since an earlier one."""

    threads: frozenset[str] = frozenset()
    sockets: frozenset[str] = frozenset()
    segments: frozenset[str] = frozenset()

    def minus(self, before: "Residue") -> "Residue":
        return Residue(self.threads - before.threads, self.sockets - before.sockets, self.segments - before.segments)

    def __bool__(self) -> bool:
        return bool(self.threads or self.sockets or self.segments)


def look(sockets: bool = True) -> Residue:
    """Return what this process holds now.

    Segments are those of the whole host by name, and those this process still maps after they were unlinked.
    """
    # The frames are kept nowhere: one of them is this one, and so is what the ranks' hold.
    ranks = {ident for ident, frame in sys._current_frames().items() if _is_a_rank(frame)}
    return Residue(
        frozenset(
            f"{thread.name}#{thread.ident}"
            for thread in threading.enumerate()
            if thread.is_alive() and (not any(part in thread.name for part in DASK_THREADS) or thread.ident in ranks)
        ),
        frozenset(_sockets()) if sockets else frozenset(),
        frozenset(_segments()),
    )


@contextlib.contextmanager
def guard(*, sockets: bool = True, deadline: float = 5.0) -> Iterator[None]:
    """Fail if the block leaves a thread, a socket or a segment behind for longer than `deadline` seconds.

    With a Dask cluster in the block use ``sockets=False``: its connection pools open and close as they please.
    """
    before = look(sockets)
    yield
    left = settle(lambda: _own(look(sockets).minus(before)), deadline)
    assert not left, f"left behind: {left}"


def _is_a_rank(frame: FrameType | None) -> bool:
    """Whether a thread, of Dask's or anybody's, is in a rank's task."""
    while frame is not None and frame.f_code.co_name not in ("rank_main", "program_main"):
        frame = frame.f_back
    return frame is not None


def of_this_process(segment: str) -> bool:
    """Whether a segment may be of this process: data names its client, which in another test may just have been killed."""
    return "scaleml-data-" not in segment or f"-{os.getpid()}-" in segment


def _own(residue: Residue) -> Residue:
    return Residue(residue.threads, residue.sockets, frozenset(filter(of_this_process, residue.segments)))


def descriptors() -> set[str]:
    """Return this process's open files, sockets and pipes, each as its number and what it is; Linux alone lists them."""
    return {f"{path.name} {target}" for path, target in _targets()}


def opened_since(before: set[str], deadline: float = 5.0) -> set[str]:
    """Return what is open now and was not, if there are more than before: others may close theirs and open them again."""

    def left() -> set[str]:
        now = descriptors()
        return now - before if len(now) > len(before) else set()

    return settle(left, deadline)


def settle(left: Callable[[], Left], deadline: float = 5.0) -> Left:
    """Ask `left` until it answers "nothing" or `deadline` seconds have passed; return its last answer."""
    until = time.monotonic() + deadline
    pause = threading.Event()
    while (residue := left()) and time.monotonic() < until:
        pause.wait(0.01)
    return residue


def _sockets() -> Iterator[str]:
    yield from (target for _, target in _targets() if target.startswith("socket:"))


def _targets() -> Iterator[tuple[Path, str]]:
    for descriptor in Path("/proc/self/fd").glob("*"):
        with contextlib.suppress(OSError):  # closed meanwhile
            yield descriptor, os.readlink(descriptor)


def segments() -> set[str]:
    """Return the names of the host's segments, but for those of other living processes: tests run beside each other."""
    root = int(os.environ.get(ROOT, os.getpid()))
    shm = Path("/dev/shm")
    return {path.name for path in shm.glob("scaleml-*") if not _is_foreign(path.name, root)} if shm.is_dir() else set()


def _is_foreign(segment: str, root: int) -> bool:
    """Whether a segment's maker, whose process id stands before the last part of its name, lives and is none of ours."""
    *_, maker, _ = segment.split("-")
    try:
        process = psutil.Process(int(maker))
        return root not in {process.pid, *(parent.pid for parent in process.parents())}
    except (ValueError, psutil.Error):
        return False


def _segments() -> Iterator[str]:
    yield from segments()
    maps = Path("/proc/self/maps")
    if maps.is_file():
        for line in maps.read_text().splitlines():
            if "/scaleml-" in line and "(deleted)" in line:
                yield f"mapped {line.split()[0]} {line.split('/', 1)[1]}"
