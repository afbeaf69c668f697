"""Environment of a measurement: when, on which processor and system, with which versions, on what data."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import final

_PACKAGES = {"scaleml": "dask-scaleml", "NumPy": "numpy", "Dask": "dask", "scikit-learn": "scikit-learn"}


@final
@dataclass(frozen=True)
class Environment:
    """Where and when something was measured.

    Parameters
    ----------
    date : str
        The beginning, in UTC, to the minute.
    processor : str
        Of the client's machine, with the number of its cores.
    system : str
    versions : mapping of str to str
        Python and the packages that times depend on.
    data : str
        What was trained on what, in words; "" where that is not known.
    """

    date: str
    processor: str
    system: str
    versions: Mapping[str, str]
    data: str = ""

    @classmethod
    def now(cls, data: str = "") -> Environment:
        """Return that of this process, here and now."""
        return cls(
            datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            f"{processor_name()}, {os.cpu_count() or 1} cores",
            f"{platform.system()} on {platform.machine()}",
            {"Python": platform.python_version(), **_versions()},
            data,
        )

    def __str__(self) -> str:
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        return "; ".join(part for part in (self.data, self.date, self.processor, self.system, versions) if part)


def processor_name() -> str:
    """Return the model of the processor as its maker calls it, or the kind of machine where that is not told."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _versions() -> dict[str, str]:
    found = {}
    for name, package in _PACKAGES.items():
        try:
            found[name] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
