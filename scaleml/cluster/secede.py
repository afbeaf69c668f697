"""Secession: runs that are started from inside a Dask task leave their worker's thread to others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from distributed import rejoin
from distributed.worker import secede


@contextmanager
def seceded() -> Iterator[None]:
    """Leave the worker's threads to others while the block runs, if this is a Dask task: a rank may need the only one.

    As Dask's own ``compute`` does inside a task. Joblib's Dask backend runs its jobs as tasks that know nothing of it.
    """
    has_seceded = _secede()
    try:
        yield
    finally:
        if has_seceded:
            rejoin()


def _secede() -> bool:
    # A function of its own: an error of the block must not show what was raised here as its context.
    try:
        secede()
    except (ValueError, AttributeError, KeyError):  # no task; not on a pool of Dask's; seceded already
        return False
    return True
