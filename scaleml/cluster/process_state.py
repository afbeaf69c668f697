"""Process state: whether a process is stopped, as its system says to whoever is on the same host; by a name that no other process has."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import Final, Literal

import psutil

from scaleml.owned_files import owner_of, owner_parts

ProcessState = Literal["stopped", "alive", "gone", "unknown"]
"""Unknown: it is not of this host, of another container, or not to be looked at."""

_STOPPED: Final = (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)


def own_name() -> str:
    """Return this process's name: boot of its host, namespace of process numbers, start, number."""
    return owner_of(os.getpid())


def state_of(name: str) -> ProcessState:
    """Return what a process is doing; one that computes without a break, or waits for a disk, is alive.

    Examples
    --------
    >>> state_of(own_name())
    'alive'
    """
    boot, namespace, _, pid = owner_parts(name)
    if (boot, namespace) != owner_parts(own_name())[:2]:
        return "unknown"
    try:
        stopped = is_stopped(int(pid))
    except psutil.NoSuchProcess:
        return "gone"
    except psutil.Error:
        return "unknown"
    if owner_of(int(pid)) != name:  # its number is another's by now, or it is dead and its parent has not noticed
        return "gone"
    return "stopped" if stopped else "alive"


def is_stopped(pid: int) -> bool:
    """Return whether a process of this host, by its number, is stopped.

    Raises
    ------
    psutil.Error
        When it is gone, or not to be looked at.
    """
    return psutil.Process(pid).status() in _STOPPED


def kill_stopped(name: str) -> bool:
    """Kill a process of this host if it is stopped, and say whether it was; as no other signal does, this reaches it."""
    if state_of(name) != "stopped":
        return False
    with contextlib.suppress(OSError):
        os.kill(int(owner_parts(name)[3]), signal.SIGKILL)
        return True
    return False
