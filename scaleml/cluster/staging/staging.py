"""What workers do with partitions: write them to files of their own folder, check, hand over and remove these."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from distributed import get_worker

from scaleml.data.pieces import Piece, Recipe, write_piece
from scaleml.data.reading import Blocks, Segment

_PREFIX: Final = "scaleml-data-"
_closed: Final[set[str]] = set()
WATCH: Final = 5.0
"""Seconds between looks whether anybody still wants the pieces of this worker."""


@dataclass(frozen=True)
class Refused:
    """A partition that cannot be trained on: an answer, not an error, for Dask need not log what the user is told."""

    kind: str
    message: str

    def error(self) -> Exception:
        """Return the error for the user."""
        kinds: dict[str, type[Exception]] = {"ValueError": ValueError, "TypeError": TypeError}
        return kinds.get(self.kind, RuntimeError)(self.message)


def stage(recipe: Recipe, index: int, first: int | None, x: Any, y: Any, w: Any) -> Piece | Refused:
    """Turn a partition into a piece of this worker; runs as a Dask task."""
    worker = get_worker()
    folder = _folder(worker, recipe.token)
    try:
        piece = write_piece(recipe, index, first, folder, x, y, w)
    except (ValueError, TypeError) as error:
        return Refused(type(error).__name__, str(error))
    except OSError as error:
        return Refused("OSError", f"worker {worker.address}: {error}")
    if recipe.token in _closed:  # whoever wanted it has gone meanwhile
        shutil.rmtree(folder, ignore_errors=True)
    return dataclasses.replace(piece, worker=worker.address)


def read(segment: Segment) -> tuple[Any, Any]:
    """Return X and y of some rows; runs as a Dask task on a worker that sees the file."""
    return Blocks([segment], max(1, segment.rows), None).all()[:2]


def pack(piece: Piece) -> bytes:
    """Return the file of a piece, for a worker that cannot read it; runs as a Dask task where the piece is."""
    assert piece.table is not None
    return pathlib.Path(piece.table.path).read_bytes()


def land(piece: Piece, token: str, content: bytes) -> Piece:
    """Write the file of a piece on this worker; runs as a Dask task."""
    assert piece.table is not None
    worker = get_worker()
    path = _folder(worker, token) / pathlib.Path(piece.table.path).name
    path.write_bytes(content)
    return dataclasses.replace(piece, table=dataclasses.replace(piece.table, path=str(path)), worker=worker.address)


def readable(files: Sequence[tuple[str, bytes]]) -> list[bool]:
    """Return which files this process sees, by how they end; runs on a worker, out of band."""
    return [_sees(path, end) for path, end in files]


def present(paths: dict[str, list[str]], dask_worker: Any) -> list[str]:
    """Return those of this worker's files that are gone; runs on a worker, out of band."""
    return [path for path in paths[dask_worker.address] if not os.path.exists(path)]


def remove(token: str, dask_worker: Any) -> None:
    """Remove all pieces of this worker; runs on a worker, out of band."""
    _closed.add(token)
    shutil.rmtree(_place(dask_worker, token), ignore_errors=True)


def lease(token: str) -> None:
    """Do nothing: as long as a client holds this task's result, it wants the pieces of the worker where that is."""


def lease_key(token: str, worker: str) -> str:
    """Return the name of a lease."""
    return f"scaleml-lease-{token}-{worker}"


def _folder(worker: Any, token: str) -> pathlib.Path:
    folder = _place(worker, token)
    if not folder.exists():
        folder.mkdir(mode=0o700, exist_ok=True)
        worker.loop.add_callback(worker.loop.call_later, WATCH, _watch, worker, token)
    return folder


def _watch(worker: Any, token: str) -> None:
    """Remove the pieces when their client has vanished: then Dask forgets all that it held."""
    if any(token in str(key) for key in list(worker.state.tasks)):
        worker.loop.call_later(WATCH, _watch, worker, token)
    else:
        shutil.rmtree(_place(worker, token), ignore_errors=True)


def _place(worker: Any, token: str) -> pathlib.Path:
    return pathlib.Path(worker.local_directory) / f"{_PREFIX}{token}"


def _sees(path: str, end: bytes) -> bool:
    with contextlib.suppress(OSError), open(path, "rb") as file:
        file.seek(-len(end), os.SEEK_END)
        return file.read() == end
    return False
