"""One number of BLAS threads for all ranks of a run, pinned while it lasts."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import threadpoolctl
from threadpoolctl import threadpool_limits


class _Pin:
    """What this process's ranks have set together."""

    lock: Final = threading.Lock()
    holders = 0
    limits: Any = None


_pin: Final = _Pin()


def _take_control() -> None:
    """Let any thread set the pools next: since threadpoolctl 3.7 only the thread that set them last may, while it lives."""
    controller = getattr(threadpoolctl, "OpenBLASController", None)
    clear = getattr(controller, "clear_controlling_thread", None)
    if clear is not None:
        clear(force=True)


@contextmanager
def pinned(threads: int) -> Iterator[None]:
    """Pin this process's BLAS and OpenMP pools to ``threads``; what was set before comes back with the last rank's end.

    Ranks of one process share its pools: the first one sets them.
    """
    with _pin.lock:
        if _pin.holders == 0:
            _take_control()
            _pin.limits = threadpool_limits(limits=threads)
        _pin.holders += 1
    try:
        yield
    finally:
        with _pin.lock:
            _pin.holders -= 1
            if _pin.holders == 0:
                _take_control()
                _pin.limits.restore_original_limits()
                _pin.limits = None
                _take_control()
