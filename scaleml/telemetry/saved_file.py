"""Saved file: one object under a name of its own and a checksum, written whole or not at all."""

from __future__ import annotations

import os
import pickle
import zlib
from pathlib import Path
from typing import Final

_MARK: Final = b"scaleml comparison 1\n"


def save(thing: object, path: str | Path) -> Path:
    """Write an object to a file and return the file's path."""
    path = Path(path)
    body = zlib.compress(pickle.dumps(thing, protocol=5))
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_bytes(_MARK + zlib.crc32(body).to_bytes(4, "big") + body)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return path


def load(path: str | Path) -> object:
    """Return the object that `save` wrote.

    Raises
    ------
    ValueError
        For a file that is none of ours, or that is torn: nothing of it is unpickled then.
    """
    data = Path(path).read_bytes()
    if not data.startswith(_MARK):
        raise ValueError(f"{str(path)!r} is no saved comparison: write one with Comparison.save(path)")
    check, body = data[len(_MARK) : len(_MARK) + 4], data[len(_MARK) + 4 :]
    if zlib.crc32(body).to_bytes(4, "big") != check:
        raise ValueError(f"{str(path)!r} is torn or altered, its checksum differs: save the comparison again")
    return pickle.loads(zlib.decompress(body))
