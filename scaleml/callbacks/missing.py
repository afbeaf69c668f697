"""Packages that a logger writes with, and that are there only for those who want it."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def imported(module: str, package: str, whose: str) -> Any:
    """Import a module of an optional package.

    Parameters
    ----------
    package : str
        What is to be installed; also an extra of this package.
    whose : str
        The callback that needs it.

    Raises
    ------
    ImportError
        If it is not installed, or does not work; says what to install.
    """
    try:
        return import_module(module)
    except ImportError as error:
        how = f"pip install {package}, or this package's extra {package}"
        raise ImportError(f"{whose} needs the package {package}: {how} ({error})") from error
