"""One number of BLAS threads for all ranks of a run, pinned while it lasts."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from threadpoolctl import threadpool_limits

_lock: Final = threading.Lock()
_holders = 0
_limits: Any = None


@contextmanager
def pinned(threads: int) -> Iterator[None]:
    """Pin this process's BLAS and OpenMP pools to ``threads``; what was set before comes back with the last rank's end.

    Ranks of one process share its pools: the first one sets them.
    """
    global _holders, _limits
    with _lock:
        if _holders == 0:
            _limits = threadpool_limits(limits=threads)
        _holders += 1
    try:
        yield
    finally:
        with _lock:
            _holders -= 1
            if _holders == 0:
                _limits.restore_original_limits()
                _limits = None
