"""A user's own modules: classes from a file beside a script, which workers that were started elsewhere cannot import."""

from __future__ import annotations

import importlib.metadata
import sys
import sysconfig
import weakref
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from distributed import Client

from scaleml.cluster import calls
from scaleml.cluster.errors import StartFailed
from scaleml.cluster.installation import IMPORTING
from scaleml.data.sealed import by_value, seal
from scaleml.telemetry.problem import named

FRAMEWORKS: Final = ("torch", "jax", "keras")
"""Packages whose objects travel pickled and compute on all ranks: one version for all, as of NumPy."""

OTHER: Final = "has "
"""How the reason begins where a package is there, but not this one's version."""

_known: Final[weakref.WeakKeyDictionary[Client, dict[tuple[str, str], str]]] = weakref.WeakKeyDictionary()
"""By client, and by worker and module, why that cannot be imported there: "" if it can."""


def carried_modules(client: Client, workers: Sequence[str], *values: object) -> frozenset[str]:
    """Return the modules of the user's that must go along with values to workers, for these cannot import them.

    Asked is only about modules that the values name and that are no part of Python, NumPy or scaleml: of most runs none.

    Raises
    ------
    StartFailed
        For an installed package that is missing there, a framework of another version, or a module that cannot go along; names it,
        the workers and the remedies.
    """
    carried: set[str] = set()
    while True:
        try:
            needed = seal(_nothing, *values, carried=carried).modules
        except Exception as error:
            if not carried:
                raise
            raise _refused(client, workers, sorted(carried), f", and it cannot be sent along ({error})") from error
        missing = _missing(client, workers, needed)
        if not missing:
            return frozenset(carried)
        fixed = [name for name in missing if not _is_users(name)]
        if fixed:
            raise _refused(client, workers, fixed, "")
        carried |= set(missing)


def _nothing(*values: object) -> None:
    """Stand for a function that takes the values."""


def _missing(client: Client, workers: Sequence[str], modules: Iterable[str]) -> list[str]:
    """Return those modules, or for what is installed here packages, that some worker cannot import."""
    known = _known.setdefault(client, {})
    own = sorted(name for name in modules if _is_users(name))
    packages = sorted({name.partition(".")[0] for name in modules if name not in own})
    wanted = [*own, *packages]
    unasked = [worker for worker in workers if any((worker, name) not in known for name in wanted)]
    if unasked:
        versions = {name: version_of(name) for name in packages if name in FRAMEWORKS}
        answers = calls.on_workers(client, IMPORTING, why_missing, own, packages, versions, workers=unasked)
        known |= {(worker, name): why for worker, whys in answers.items() for name, why in whys.items()}
    return [name for name in wanted if any(known[worker, name] for worker in workers)]


def _is_users(name: str) -> bool:
    """Whether a module is a Python file outside of what is installed: small, and found by its folder alone."""
    file = getattr(sys.modules.get(name), "__file__", None)
    if file is None or not file.endswith(".py"):
        return False
    installed = {Path(sysconfig.get_path(kind)).resolve() for kind in ("stdlib", "platstdlib", "purelib", "platlib")}
    folders = set(Path(file).resolve().parents)
    return not installed & folders and not any(folder.name in ("site-packages", "dist-packages") for folder in folders)


def _refused(client: Client, workers: Sequence[str], modules: Sequence[str], why: str) -> StartFailed:
    known = _known[client]
    told, others = [], []
    for name in modules:
        lacking = [worker for worker in workers if known.get((worker, name))]
        said = known[lacking[0], name]
        if said.startswith(OTHER):
            told.append(f"{named(lacking)} {said}")
            others.append(f"{name}=={version_of(name)}")
        else:
            told.append(f"{named(lacking)} cannot import {name} ({said}){why}")
    if others:
        return StartFailed(f"{'; '.join(told)}: install the same version on both: {', '.join(others)}")
    file = getattr(sys.modules.get(modules[0]), "__file__", None) or f"{modules[0]}.py"
    if not _is_users(modules[0]):
        version = f"=={version_of(modules[0])}" if version_of(modules[0]) else ""
        return StartFailed(f"{'; '.join(told)}: install {modules[0]}{version} there, as it is installed here")
    return StartFailed(
        f"{'; '.join(told)}: install it there; or, for a module of your own, client.upload_file({file!r}), "
        f"cloudpickle.register_pickle_by_value({modules[0]}), or its folder in the workers' PYTHONPATH"
    )


def version_of(package: str) -> str:
    """Return the version of a package that is installed here, without what it was built for, such as ``+cpu``; "" if it says none."""
    try:
        return importlib.metadata.version(package).partition("+")[0]
    except importlib.metadata.PackageNotFoundError:
        return ""


@by_value
def why_missing(modules: list[str], packages: list[str], versions: dict[str, str] | None = None) -> dict[str, str]:
    """Return why each cannot be used where this is called; "" if it can. Packages are looked for only: some take seconds."""
    import importlib
    import importlib.metadata
    import importlib.util

    found = {}
    for name in modules:
        try:
            importlib.import_module(name)
            found[name] = ""
        except Exception as error:  # noqa: BLE001  whatever an import raises is the answer
            found[name] = f"{type(error).__name__}: {error}"
    for name in packages:
        found[name] = "" if importlib.util.find_spec(name) else f"No module named {name!r}"
        if versions and versions.get(name) and not found[name]:
            try:
                own = importlib.metadata.version(name).partition("+")[0]
            except importlib.metadata.PackageNotFoundError:
                continue
            if own != versions[name]:
                found[name] = f"has {name} {own}, this process {versions[name]}"
    return found
