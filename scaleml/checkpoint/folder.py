"""A folder of checkpoints: of this host's file system, or of any that fsspec knows. Files appear whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, BinaryIO, Final, final

from scaleml.checkpoint.errors import CheckpointError

__all__ = ["Folder", "open_folder", "words_of"]

_WRITING: Final = ".writing"
"""How the name of a file ends that is not whole yet."""


class Folder(ABC):
    """Files by their names in it, such as ``step-00000012-ab/manifest.json``."""

    def __init__(self, url: str) -> None:
        self.url = url

    @abstractmethod
    def make(self) -> None:
        """Make it, if it is not there."""

    @abstractmethod
    def names(self, inner: str = "") -> list[str]:
        """Return the names of what is in it, or in a folder of it, in order; nothing where that does not exist."""

    @abstractmethod
    def write(self, name: str, data: bytes) -> None:
        """Write a file, which others see when it is whole."""

    @abstractmethod
    def opened(self, name: str) -> BinaryIO:
        """Open a file to read it; FileNotFoundError where it is not there."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove a file, or a folder with all that is in it, if it is there."""

    def read(self, name: str) -> bytes:
        """Return what a file holds."""
        with self.opened(name) as file:
            return file.read()

    def sum_of(self, name: str) -> tuple[int, str]:
        """Return the bytes of a file and their SHA-256."""
        with self.opened(name) as file:
            size, digest = 0, hashlib.sha256()
            while block := file.read(1 << 20):
                size += len(block)
                digest.update(block)
        return size, digest.hexdigest()


@final
class LocalFolder(Folder):
    """A folder of a file system that this host has mounted."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._path = Path(path)

    def make(self) -> None:
        """Make it, if it is not there."""
        self._path.mkdir(parents=True, exist_ok=True)

    def names(self, inner: str = "") -> list[str]:
        """Return the names of what is in it."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            return sorted(os.listdir(self._path / inner))
        return []

    def write(self, name: str, data: bytes) -> None:
        """Write beside it, have it on the disk, rename it."""
        path = self._path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f"{path.name}.{os.getpid()}{_WRITING}")
        try:
            with open(unfinished, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(unfinished, path)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)

    def opened(self, name: str) -> BinaryIO:
        """Open a file."""
        return open(self._path / name, "rb")

    def remove(self, name: str) -> None:
        """Remove a file or a folder."""
        path = self._path / name
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


@final
class RemoteFolder(Folder):
    """A folder of a file system of fsspec's, in which a file that is being written is not there yet."""

    def __init__(self, url: str, files: Any, path: str) -> None:
        super().__init__(url)
        self._files, self._path = files, path.rstrip("/")

    def make(self) -> None:
        """Make it, where folders are something."""
        self._files.makedirs(self._path, exist_ok=True)

    def names(self, inner: str = "") -> list[str]:
        """Return the names of what is in it."""
        self._files.invalidate_cache()
        try:
            found = self._files.ls(self._at(inner) if inner else self._path, detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(name for name in {str(path).rstrip("/").rpartition("/")[2] for path in found} if name)

    def write(self, name: str, data: bytes) -> None:
        """Put it there as a whole."""
        self._files.makedirs(self._at(name).rpartition("/")[0], exist_ok=True)
        self._files.pipe_file(self._at(name), data)

    def opened(self, name: str) -> BinaryIO:
        """Open a file."""
        self._files.invalidate_cache()
        file: BinaryIO = self._files.open(self._at(name), "rb")
        return file

    def remove(self, name: str) -> None:
        """Remove a file or a folder."""
        with contextlib.suppress(FileNotFoundError):
            self._files.rm(self._at(name), recursive=True)

    def _at(self, name: str) -> str:
        return f"{self._path}/{name}"


def open_folder(url: str) -> Folder:
    """Return a folder by its absolute path or url.

    Raises
    ------
    CheckpointError
        For a protocol that nobody knows, or whose library is missing.
    """
    if "://" not in url:
        return LocalFolder(url)
    from fsspec.core import url_to_fs

    protocol = url.partition("://")[0]
    try:
        files, path = url_to_fs(url)
    except ImportError as error:
        raise CheckpointError(
            f"{url}: {error}. Install the library for {protocol}:// here and on all workers, or give a path that all of them see"
        ) from error
    except ValueError as error:
        raise CheckpointError(
            f"{url}: fsspec knows no such place ({error}); give a path, or a url such as s3://bucket/folder"
        ) from error
    return RemoteFolder(url, files, str(path))


def words_of(error: BaseException) -> str:
    """Return an error of a file system in words: its own, which most have, else its class."""
    words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return words or type(error).__name__


def _sync_folder(path: Path) -> None:
    with contextlib.suppress(OSError):  # some file systems have nothing to sync in a folder
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
