"""Room for data: rows that nobody has the disk for are refused by their shape, before any is touched."""

from __future__ import annotations

import os
import shutil
from typing import Any, Final

import numpy as np
from distributed import Client, get_worker
from distributed.system import MEMORY_LIMIT

from scaleml.cluster import calls
from scaleml.cluster.current_client import has_client
from scaleml.cluster.errors import StartFailed
from scaleml.cluster.host_facts import this_host
from scaleml.cluster.placement import Workers
from scaleml.cluster.ready_workers import ready_workers
from scaleml.cluster.staging.memory import in_bytes
from scaleml.data.collections import is_collection
from scaleml.data.row_dtype import in_words, row_of
from scaleml.data.source import ArraySource
from scaleml.owned_files import folders

_SMALL: Final = 1 << 30
"""Bytes that are not worth looking."""
_A_ROW: Final = 24
"""Bytes that each row of arrays costs this process beside X: its place in the order, its label, what they are made of."""


def check_room(
    X: object, dtype: str, client: Client | None, workers: Workers, name: str = "X", *, any_shape: bool = False
) -> None:
    """Refuse data whose copy for the ranks would fit nowhere: arrays on this machine, Dask collections on the workers' disks.

    What is larger than memory is welcome where a disk can take it: ranks then read it from there. Only shapes are looked at.

    Raises
    ------
    StartFailed
        With the figures.
    """
    given: Any = X.x if isinstance(X, ArraySource) else X
    found = _of_any_shape(given, dtype) if any_shape else _of_table(given, dtype)
    if found is None:
        return  # its rows are not known without work, or are few values
    rows, row_nbytes, of = found
    nbytes = rows * (row_nbytes + 8)
    if nbytes < _SMALL:
        return
    size = f"{name} has {rows:,} rows of {of}, {in_bytes(nbytes)}{'' if any_shape else f' as {dtype}'}"
    if is_collection(given):
        _check_disks(size, nbytes, client, workers, name)
        return
    room = {str(folder): shutil.disk_usage(folder).free for folder in folders()}
    if nbytes > max(room.values()):
        listed = " and ".join(f"{in_bytes(free)} in {folder}" for folder, free in room.items())
        raise StartFailed(
            f"{size}, but this machine has room for {listed}: train on fewer rows, set TMPDIR to a larger disk, or pass a Dask "
            f"collection (dask.array.from_array({name}, chunks=...)), which is kept on the disks of all workers"
        )
    if rows * _A_ROW > MEMORY_LIMIT:
        raise StartFailed(
            f"{size}: to shuffle so many rows takes {in_bytes(rows * _A_ROW)} of memory here, and this machine has "
            f"{in_bytes(MEMORY_LIMIT)}: train on fewer rows, or pass a Dask collection (dask.array.from_array({name}, chunks=...))"
        )


def _of_table(given: Any, dtype: str) -> tuple[int, int, str] | None:
    """Return the rows of dense X, the bytes of one, and its columns in words; None where they are not known."""
    shape = _shape_of(given)
    if shape is None or len(shape) != 2 or hasattr(given, "tocsr"):
        return None
    return shape[0], shape[1] * np.dtype(dtype).itemsize, f"{shape[1]:,} columns"


def _of_any_shape(given: Any, dtype: str) -> tuple[int, int, str] | None:
    """Return the same of one or several inputs of any shape."""
    parts = list(given.values() if isinstance(given, dict) else given if isinstance(given, tuple) else [given])
    shapes = [_shape_of(part) for part in parts]
    if not shapes or not all(shapes) or not all(isinstance(getattr(part, "dtype", None), np.dtype) for part in parts):
        return None
    known = [np.empty((0, *shape[1:]), part.dtype) for part, shape in zip(parts, shapes, strict=True) if shape]
    rows = [row_of(each, dtype) for each in known]
    return (shapes[0] or (0,))[0], sum(row.itemsize for row in rows), " and ".join(in_words(row) for row in rows)


def _shape_of(given: Any) -> tuple[int, ...] | None:
    shape = getattr(given, "shape", ())
    if not isinstance(shape, tuple) or not all(isinstance(size, int | np.integer) for size in shape):
        return None
    return tuple(int(size) for size in shape) or None


def _check_disks(size: str, nbytes: int, client: Client | None, workers: Workers, name: str) -> None:
    disks = {_disk(str(folders()[-1]))} if client is None and not has_client() else _disks(client, workers)
    room = sum(free for _, _, free in disks)
    if nbytes > room:
        raise StartFailed(
            f"{size}, which ranks read from files on the workers' disks, and these have room for {in_bytes(room)}: train on fewer rows "
            f"({name}[:n], or a sample), give the workers larger disks (temporary-directory in the configuration of Dask), or add "
            "workers on other hosts"
        )


def _disks(client: Client | None, workers: Workers) -> set[tuple[str, int, int]]:
    ready = ready_workers(client, workers)
    disks = calls.on_workers(ready.client, calls.CALL_TIMEOUT, _disk_of_worker, workers=ready.chosen)
    return set({disk[:2]: disk for disk in disks.values()}.values())  # workers of one host share theirs


def _disk_of_worker() -> tuple[str, int, int]:
    return _disk(get_worker().local_directory)


def _disk(folder: str) -> tuple[str, int, int]:
    """Return the host, the number and the free bytes of the disk that a folder is on."""
    return this_host()["boot"], os.stat(folder).st_dev, shutil.disk_usage(folder).free
