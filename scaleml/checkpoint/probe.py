"""The probe of a folder before a run: whether the client and each worker can write there, and see what the others have written."""

from __future__ import annotations

from scaleml.checkpoint.errors import CheckpointError
from scaleml.checkpoint.folder import open_folder, words_of

__all__ = ["leave_probe", "probe", "remove_probe"]


def leave_probe(url: str, token: str) -> None:
    """Make the folder and write a file into it, in the client; CheckpointError where that cannot be."""
    folder = open_folder(url)
    try:
        folder.make()
        folder.write(_name(token), token.encode())
        seen = folder.read(_name(token))
    except Exception as error:  # of as many kinds as there are file systems
        raise CheckpointError(
            f"{url}: nothing can be written there: {words_of(error)}. Give a folder that you may write to"
        ) from error
    if seen != token.encode():
        raise CheckpointError(f"{url}: what was written there is not what is read: give another folder")


def probe(url: str, token: str) -> str:
    """Look on a worker for what the client has written, and write there; return what is wrong, "" for nothing."""
    try:
        folder = open_folder(url)
        try:
            seen = folder.read(_name(token)) == token.encode()
        except FileNotFoundError:
            seen = False
        if not seen:
            return "it does not see what the client has written there"
        own = f"{_name(token)}-of-a-worker"
        folder.write(own, b"")
        folder.remove(own)
    except Exception as error:  # noqa: BLE001  of as many kinds as there are file systems
        return words_of(error)
    return ""


def remove_probe(url: str, token: str) -> None:
    """Remove what `leave_probe` has left."""
    open_folder(url).remove(_name(token))


def _name(token: str) -> str:
    return f"probe-{token}"
