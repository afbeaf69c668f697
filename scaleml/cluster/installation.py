"""Installations: what of Python, NumPy and scaleml the workers have, and whether that is what this process has."""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Final, TypedDict, TypeVar, cast

from distributed import Client

from scaleml.cluster import calls
from scaleml.data.sealed import by_value
from scaleml.telemetry.problem import Problem

NEEDED: Final = ("scaleml.cluster.host_facts", "scaleml.cluster.rank_task", "scaleml.cluster.staging.stage_pass")
"""What runs need on a worker."""
IMPORTING: Final = 30.0
"""Seconds for workers to import scaleml, the first time that they hear of it."""

Answer = TypeVar("Answer")


class Installation(TypedDict):
    """What a process has installed: plain values, for they travel between versions."""

    python: str
    numpy: str
    """Its version; "" where it cannot be imported."""
    scaleml: str
    """Its version; "" where there is none."""
    build: str
    """A digest of scaleml's files; "" where they cannot be read."""
    files: str
    """What tells those very files from copies, and from what they were before a change."""
    missing: str
    """The module that was not found when what runs need was imported; "" if all were."""
    error: str
    """Why what runs need cannot be imported; "" if it can."""


@by_value
def installation(needed: tuple[str, ...], package: str = "scaleml", known: tuple[str, str] = ("", "")) -> Installation:
    """Return what is installed where this is called; it travels by value, for there may be no scaleml.

    Parameters
    ----------
    needed : tuple of str
        Modules to import.
    package : str
        Whose files are looked at.
    known : tuple of str
        ``files`` and ``build`` of another process: of the same files the digest need not be made again.
    """
    import hashlib
    import importlib
    import pathlib
    import platform

    found: Installation = {
        "python": platform.python_version(),
        "numpy": "",
        "scaleml": "",
        "build": "",
        "files": "",
        "missing": "",
        "error": "",
    }
    try:
        found["numpy"] = str(importlib.import_module("numpy").__version__)
        module = importlib.import_module(package)
        found["scaleml"] = str(module.__version__)
        digest, same = hashlib.sha256(), hashlib.sha256()
        folder = pathlib.Path(str(module.__file__)).parent
        paths = sorted(folder.rglob("*.py"))
        for path in paths:
            facts = path.stat()
            same.update(f"{path} {facts.st_dev} {facts.st_ino} {facts.st_size} {facts.st_mtime_ns}\n".encode())
        found["files"] = same.hexdigest()[:16]
        if found["files"] == known[0]:
            found["build"] = known[1]
        else:
            for path in paths:
                digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
            found["build"] = digest.hexdigest()[:16]
        for name in needed:
            importlib.import_module(name)
    except OSError:
        pass  # in an archive: what it is cannot be told
    except Exception as error:  # noqa: BLE001  whatever an import raises is the answer
        found["error"] = f"{type(error).__name__}: {error}"
        found["missing"] = str(getattr(error, "name", "") or "")
    return found


def there(function: Callable[..., Answer]) -> Callable[..., Answer]:
    """Return what to call on a worker, whose event loop goes on meanwhile: imports may take long."""
    return cast("Callable[..., Answer]", partial(_in_a_thread, function))


@by_value
async def _in_a_thread(function: Callable[..., object], *arguments: object) -> object:
    import asyncio

    return await asyncio.to_thread(function, *arguments)


def installations(client: Client, addresses: list[str], seconds: float) -> dict[str, Installation | BaseException]:
    """Ask workers what they have, in one round with a deadline for each, without scaleml being needed there.

    Parameters
    ----------
    seconds : float
        For a worker to import what runs need.
    """
    here, known = platform.python_version(), (_here()["files"], _here()["build"])

    async def ask(address: str) -> Installation:
        versions = await asyncio.wait_for(calls.versions_on(client, address), calls.CALL_TIMEOUT)
        python = ".".join(str(versions.get("python")).split(".")[:3])
        if minor(python) != minor(here):  # code of ours does not run there
            return {"python": python, "numpy": "", "scaleml": "", "build": "", "files": "", "missing": "", "error": ""}
        return await calls.on_worker(client, address, there(installation), NEEDED, "scaleml", known)

    return calls.ask_each(client, seconds, ask, addresses)


def mismatches(there: Mapping[str, Installation | BaseException]) -> list[Problem]:
    """Return what of the workers' installations is not as here: what runs would fail by."""
    here = _here()
    found = []
    for address, one in there.items():
        said = _mismatch(one, here)
        if said is not None:
            found.append(Problem("error", (address,), *said))
    return found


@cache
def _here() -> Installation:
    """Return what this process has: read once, for what it has loaded stays what it was."""
    return installation(())


def minor(version: str) -> str:
    """Return a version without its last part.

    >>> minor("3.11.7")
    '3.11'
    """
    return version.rpartition(".")[0]


def _mismatch(there: Installation | BaseException, here: Installation) -> tuple[str, str] | None:
    """Return what is wrong, and the remedy."""
    if isinstance(there, BaseException):
        why = "" if isinstance(there, TimeoutError) else f" ({type(there).__name__}: {there})"
        return (
            f"does not answer{why}",
            "its process is stopped or too busy, or has just gone; look at its log, then restart it",
        )
    if minor(there["python"]) != minor(here["python"]):
        return (
            f"has Python {there['python']}, this process {here['python']}",
            f"use the same minor version on both, such as {minor(here['python'])}",
        )
    version, ours = there["scaleml"], here["scaleml"]
    if not version and there["missing"] in ("scaleml", ""):
        return (
            f"cannot import scaleml ({there['error']})",
            f"install scaleml=={ours} there, as it is installed here",
        )
    for what, other, own in (("scaleml", version, ours), ("numpy", there["numpy"], here["numpy"])):
        if other and other != own:
            return f"has {what} {other}, this process {own}", f"install the same version on both: {what}=={own}"
    if there["missing"].partition(".")[0] not in ("", "scaleml"):
        return (
            f"cannot import scaleml or what it needs ({there['error']})",
            f"install {there['missing'].partition('.')[0]} there, or scaleml=={ours} anew with all that it needs",
        )
    if there["error"] or (there["build"] and here["build"] and there["build"] != here["build"]):
        why = f" ({there['error']})" if there["error"] else ""
        return (
            f"has scaleml {version} as this process, but other code under that version{why}",
            f"install scaleml=={ours} there from the same build as here",
        )
    return None
