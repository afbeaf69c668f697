"""The manifest of a checkpoint: which files belong to it, their sizes and sums, and what its run was. Written last."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, Self, final

from scaleml.checkpoint.errors import CheckpointError
from scaleml.checkpoint.folder import Folder, words_of

__all__ = ["MANIFEST", "SHARED", "Manifest", "StoredFile", "rank_file", "server_file"]

MANIFEST: Final = "manifest.json"
SHARED: Final = "shared.safetensors"
"""What all ranks have alike."""
FORMAT: Final = "scaleml checkpoint"
VERSION: Final = 1
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9.-]*")


def rank_file(rank: int) -> str:
    """Return the name of the file of what only one rank has."""
    return f"rank-{rank}.safetensors"


def server_file(server: int) -> str:
    """Return the name of the file of what a server holds, counted from the first server."""
    return f"server-{server}.safetensors"


@final
@dataclass(frozen=True)
class StoredFile:
    """A file as it was written."""

    bytes: int
    sha256: str


@final
@dataclass(frozen=True)
class Manifest:
    """One checkpoint.

    Parameters
    ----------
    name : str
        Of its folder.
    run : str
        Which run wrote it.
    written : str
        When, by the clock of who wrote it (ISO 8601, UTC).
    scaleml : str
        The version that wrote it.
    files : mapping
        Name -> size and sum.
    about : mapping
        What the run was, how far it had come; plain values.
    """

    name: str
    run: str
    written: str
    scaleml: str
    files: Mapping[str, StoredFile]
    about: Mapping[str, Any]

    def to_bytes(self) -> bytes:
        """Return it as JSON, with a sum of its own."""
        plain: dict[str, Any] = {"format": FORMAT, "version": VERSION}
        plain |= {one.name: getattr(self, one.name) for one in fields(self) if one.name not in ("name", "files")}
        plain["files"] = {name: {"bytes": file.bytes, "sha256": file.sha256} for name, file in self.files.items()}
        return json.dumps({**plain, "sha256": _sum_of(plain)}, indent=1).encode()

    @classmethod
    def read(cls, folder: Folder, name: str) -> Self:
        """Read that of the checkpoint in the folder of this name.

        Raises
        ------
        CheckpointError
            Where there is none, or it is not whole, or not of this package.
        """
        path = f"{name}/{MANIFEST}"
        try:
            data = folder.read(path)
        except FileNotFoundError:
            raise CheckpointError(f"{path} is missing: the checkpoint was not finished") from None
        except Exception as error:  # of as many kinds as there are file systems
            raise CheckpointError(f"{path} cannot be read: {words_of(error)}") from error
        return cls.from_bytes(name, data)

    @classmethod
    def from_bytes(cls, name: str, data: bytes) -> Self:
        """Read what `to_bytes` made; see `read`."""
        path = f"{name}/{MANIFEST}"
        try:
            plain = json.loads(data)
        except ValueError:
            raise CheckpointError(f"{path} is torn or altered: it is no JSON") from None
        if not isinstance(plain, dict) or plain.get("format") != FORMAT:
            raise CheckpointError(f"{path} is foreign: scaleml has not written it")
        if plain.get("version") != VERSION:
            raise CheckpointError(
                f"{path} is of format {plain.get('version')!r}, by scaleml {plain.get('scaleml')!r}; this one reads format {VERSION}: "
                "install the version that wrote it"
            )
        own = plain.pop("sha256", None)
        if own != _sum_of(plain):
            raise CheckpointError(f"{path} is altered: its content does not fit its SHA-256")
        files = {str(file): StoredFile(int(of["bytes"]), str(of["sha256"])) for file, of in plain["files"].items()}
        if not all(_NAME.fullmatch(file) for file in files):
            raise CheckpointError(f"{path} is foreign: it names files that are none of a checkpoint's")
        return cls(name, plain["run"], plain["written"], plain["scaleml"], files, plain["about"])

    def check(self, folder: Folder) -> None:
        """Raise CheckpointError unless all files are there as they were written."""
        for name, expected in self.files.items():
            path = f"{self.name}/{name}"
            try:
                size, digest = folder.sum_of(path)
            except FileNotFoundError:
                raise CheckpointError(f"{path} is missing") from None
            except Exception as error:  # of as many kinds as there are file systems
                raise CheckpointError(f"{path} cannot be read: {words_of(error)}") from error
            if size != expected.bytes:
                raise CheckpointError(f"{path} is torn: it has {size:,} bytes of {expected.bytes:,}")
            if digest != expected.sha256:
                raise CheckpointError(f"{path} is altered: its content does not fit the manifest's SHA-256")

    def content(self, folder: Folder, name: str) -> bytes:
        """Return one of its files, as it was written; CheckpointError for anything else."""
        data = folder.read(f"{self.name}/{name}")
        if hashlib.sha256(data).hexdigest() != self.files[name].sha256:
            raise CheckpointError(f"{self.name}/{name} is altered: its content does not fit the manifest's SHA-256")
        return data


def _sum_of(plain: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
