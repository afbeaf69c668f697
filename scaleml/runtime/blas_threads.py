"""One number of BLAS threads, and of PyTorch's, for all ranks of a run, pinned while it lasts."""

from __future__ import annotations

import sys
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
    of_torch = 0
    """What PyTorch had; 0 where it is not loaded."""


_pin: Final = _Pin()


def _take_control() -> None:
    """Let any thread set the pools next: since threadpoolctl 3.7 only the thread that set them last may, while it lives."""
    controller = getattr(threadpoolctl, "OpenBLASController", None)
    clear = getattr(controller, "clear_controlling_thread", None)
    if clear is not None:
        clear(force=True)


@contextmanager
def pinned(threads: int) -> Iterator[None]:
    """Pin this process's BLAS and OpenMP pools, and PyTorch's, to ``threads``; what was set before comes back with the last rank's end.

    Ranks of one process share its pools: the first one sets them. PyTorch's number is each thread's own, and it is pinned only where
    a model has loaded PyTorch.
    """
    torch = sys.modules.get("torch")
    if not hasattr(torch, "set_num_threads"):  # another thread is loading it
        torch = None
    with _pin.lock:
        before = 0 if torch is None else torch.get_num_threads()  # it is OpenMP's, and limited next
        if _pin.holders == 0:
            _take_control()
            _pin.limits = threadpool_limits(limits=threads)
            _pin.of_torch = 0
        if torch is not None:
            _pin.of_torch = _pin.of_torch or before
            torch.set_num_threads(threads)
        _pin.holders += 1
    try:
        yield
    finally:
        with _pin.lock:
            _pin.holders -= 1
            if _pin.holders == 0:
                if torch is not None and _pin.of_torch:
                    torch.set_num_threads(_pin.of_torch)
                _take_control()
                _pin.limits.restore_original_limits()
                _pin.limits = None
                _take_control()
