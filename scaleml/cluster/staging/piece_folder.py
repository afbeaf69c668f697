"""A worker's folder of pieces: what is done there to write, hand over and remove their files; all of it runs on workers."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import shutil
from collections.abc import Sequence
from functools import partial
from typing import Final

from distributed import Worker, get_worker

from scaleml.cluster import config
from scaleml.data.piece import Arrays, Piece, Run
from scaleml.data.stream import Blocks

_PREFIX: Final = "scaleml-data-"
_closed: Final[set[str]] = set()
WATCH: Final = 5.0
"""Seconds between looks whether anybody still wants the pieces of this worker."""


def folder_of(worker: Worker, token: str) -> pathlib.Path:
    """Return the worker's folder for the pieces of one pass, which goes when nobody wants them any more."""
    folder = _place(worker, token)
    if not folder.exists():
        folder.mkdir(mode=0o700, exist_ok=True)
        worker.loop.add_callback(worker.loop.call_later, WATCH, _watch, worker, token)
    return folder


def is_closed(token: str) -> bool:
    """Whether whoever wanted these pieces has gone."""
    return token in _closed


# Dask tasks.


def read(run: Run) -> Arrays:
    """Return X, y and weights of some rows, on a worker that sees the file."""
    return Blocks([run], max(1, run.rows), None).all()


def pack(piece: Piece) -> bytes:
    """Return the file of a piece, where it is, for a worker that cannot read it."""
    return pathlib.Path(piece.path).read_bytes()


def land(piece: Piece, token: str, content: bytes) -> Piece:
    """Write the file of a piece on this worker."""
    path = folder_of(get_worker(), token) / pathlib.Path(piece.path).name
    with open(path, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(content)
    return dataclasses.replace(piece, path=str(path))


def lease(token: str) -> None:
    """Do nothing: as long as a client holds this task's result, it wants the pieces of the worker where that is."""


def lease_key(token: str, worker: str) -> str:
    """Return the name of a lease."""
    return f"scaleml-lease-{token}-{worker}"


# Calls out of band.


def readable(files: Sequence[tuple[str, bytes]]) -> list[bool]:
    """Return which files this process sees, by how they end."""
    return [_sees(path, end) for path, end in files]


def missing(paths: Sequence[str]) -> list[str]:
    """Return those of this worker's files that are gone."""
    return [path for path in paths if not os.path.exists(path)]


def remove(token: str, dask_worker: Worker) -> None:
    """Remove all pieces of this worker."""
    _closed.add(token)
    shutil.rmtree(_place(dask_worker, token), ignore_errors=True)


def _watch(worker: Worker, token: str, *, is_last: bool = False) -> None:
    """Remove the pieces when their client has vanished: then Dask forgets all that it held. It has some time to come back for them."""
    if any(token in str(key) for key in list(worker.state.tasks)):
        worker.loop.call_later(WATCH, _watch, worker, token)
    elif not is_last:
        worker.loop.call_later(config.seconds("client-timeout"), partial(_watch, worker, token, is_last=True))
    else:
        shutil.rmtree(_place(worker, token), ignore_errors=True)


def _place(worker: Worker, token: str) -> pathlib.Path:
    return pathlib.Path(worker.local_directory) / f"{_PREFIX}{token}"


def _sees(path: str, end: bytes) -> bool:
    with contextlib.suppress(OSError), open(path, "rb") as file:
        file.seek(-len(end), os.SEEK_END)
        return file.read() == end
    return False
