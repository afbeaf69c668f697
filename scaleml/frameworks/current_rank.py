"""Which rank of a program this thread is: what `scaleml.rank`, `scaleml.size` and `scaleml.communicator` know."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from scaleml.frameworks.rank_communicator import RankCommunicator

Write = Callable[[str, str], None]
"""Called as ``write(stream, text)``, with ``"stdout"`` or ``"stderr"``."""


@dataclass(frozen=True)
class CurrentRank:
    """A rank that runs a program in this process.

    Parameters
    ----------
    communicator : RankCommunicator
        Its own.
    write : callable
        Takes what it prints.
    """

    communicator: RankCommunicator
    write: Write


_by_thread: Final[dict[int, CurrentRank]] = {}
_strangers: Final[set[int]] = set()
"""Threads that were there before a rank: of Dask, or of others who use this process."""
_lock: Final = threading.Lock()


@contextmanager
def as_rank(current: CurrentRank) -> Iterator[None]:
    """Have this thread be a rank while the block runs; and, where the process has no other rank, the threads that it starts."""
    ident = threading.get_ident()
    with _lock:
        if not _by_thread:
            _strangers.clear()
            _strangers.update(sys._current_frames())
        _by_thread[ident] = current
    try:
        yield
    finally:
        with _lock:
            _by_thread.pop(ident, None)


def current_rank() -> CurrentRank | None:
    """Return the rank that this thread is, or belongs to; None outside of programs."""
    ident = threading.get_ident()
    found = _by_thread.get(ident)
    if found is not None or not _by_thread or ident in _strangers:
        return found
    if threading.current_thread().name.startswith("Dask-"):
        return None
    with _lock:
        return next(iter(_by_thread.values())) if len(_by_thread) == 1 else None


def communicator() -> RankCommunicator:
    """Return the communicator of the program that `scaleml.spmd` runs here.

    Raises
    ------
    RuntimeError
        Outside of such a program.

    Examples
    --------
    >>> import numpy as np
    >>> import scaleml
    >>> def total(x):
    ...     return scaleml.communicator().allreduce(x * (1 + scaleml.rank()))
    >>> scaleml.spmd(total, np.ones(2), workers=2)  # doctest: +SKIP
    [array([3., 3.]), array([3., 3.])]
    """
    return _required("communicator").communicator


def rank() -> int:
    """Return which rank of its program this is: 0 to ``scaleml.size() - 1``.

    Raises
    ------
    RuntimeError
        Outside of a program that `scaleml.spmd` runs.
    """
    return _required("rank").communicator.rank


def size() -> int:
    """Return how many ranks the program has.

    Raises
    ------
    RuntimeError
        Outside of a program that `scaleml.spmd` runs.
    """
    return _required("size").communicator.size


def _required(name: str) -> CurrentRank:
    found = current_rank()
    if found is None:
        raise RuntimeError(
            f"scaleml.{name}() is known in a function that scaleml.spmd runs, and in threads that it starts, not here; "
            "scaleml.spmd(function, workers=1) runs one on a single rank"
        )
    return found
