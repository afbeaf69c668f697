"""Saved file: written whole or not at all; one object under a name of its own and a checksum."""

from __future__ import annotations

import os
import pickle
import secrets
import zlib
from pathlib import Path
from typing import Final

_MARK: Final = b"scaleml comparison 1\n"


def write_whole(path: str | Path, content: bytes) -> Path:
    """Write a file whole or not at all, and return its path.

    A draft is written beside it, under a name that is new: others who may write in that folder cannot have put a link there.
    """
    path = Path(path)
    draft = path.with_name(f".{secrets.token_hex(8)}.draft")
    descriptor = os.open(
        draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666
    )  # as the user's umask has it
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    return path


def save(thing: object, path: str | Path) -> Path:
    """Write an object to a file and return the file's path."""
    body = zlib.compress(pickle.dumps(thing, protocol=5))
    return write_whole(path, _MARK + zlib.crc32(body).to_bytes(4, "big") + body)


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
