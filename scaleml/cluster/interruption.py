"""Interruption of a thread that runs a user's code: an exception that comes between two of its instructions, as Ctrl-C's does."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from typing import TypeVar, final

Answer = TypeVar("Answer")


class Interrupted(BaseException):
    """The rank is to end: raised in its thread, wherever that is. Like ``KeyboardInterrupt`` it is no ``Exception``."""


@final
class Interruption:
    """Calls a function, so that another thread can break it off. What waits outside of Python hears of it only afterwards."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: int | None = None
        self._is_wanted = False

    def call(self, function: Callable[[], Answer]) -> Answer:
        """Call a function in this thread.

        Raises
        ------
        Interrupted
            When `interrupt` was called before or meanwhile.
        """
        try:
            with self._lock:
                if self._is_wanted:
                    raise Interrupted
                self._thread = threading.get_ident()
            return function()
        finally:
            self._disarm()

    def interrupt(self) -> None:
        """From any thread: break the call off. Code that catches everything may have to be told again."""
        with self._lock:
            self._is_wanted = True
            if self._thread is not None:
                _raise_in(self._thread, Interrupted)

    def _disarm(self) -> None:
        while self._thread is not None:
            try:
                with self._lock:
                    thread, self._thread = self._thread, None
                    if thread is not None:
                        _raise_in(thread, None)  # what was raised and has not come yet
            except Interrupted:  # it has come just now
                continue


def _raise_in(thread: int, kind: type[BaseException] | None) -> None:
    error = None if kind is None else ctypes.py_object(kind)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), error)
