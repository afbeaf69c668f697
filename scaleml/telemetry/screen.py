"""Screen: where somebody looks, a notebook or a terminal, or nobody."""

from __future__ import annotations

import multiprocessing
import sys
import threading
from collections.abc import Callable
from typing import Any, Literal

Place = Literal["notebook", "terminal", "none"]


def alone() -> bool:
    """Whether this is the main thread of a process of the user's: others do not draw on a screen that they share."""
    return threading.current_thread() is threading.main_thread() and multiprocessing.parent_process() is None


def place(*streams: Any) -> Place:
    """Return what somebody sees: a notebook, or a terminal where all the streams are one; else none.

    >>> import io
    >>> place(io.StringIO())
    'none'
    """
    if hasattr(_shell(), "kernel"):
        return "notebook"
    if all(stream is not None and stream.isatty() for stream in streams):
        from rich.console import Console

        if not Console(file=streams[0]).is_dumb_terminal:
            return "terminal"
    return "none"


def display() -> Callable[..., Any]:
    """Return IPython's ``display``, in a notebook."""
    shown: Callable[..., Any] = sys.modules["IPython"].display.display
    return shown


def _shell() -> Any:
    # Not imported: where there is a notebook, it is there.
    ipython = sys.modules.get("IPython")
    return None if ipython is None else ipython.get_ipython()
