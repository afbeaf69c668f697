"""Output of a program's ranks: what they print and log goes to the client by lines, what others print in the process goes its way."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Final, TextIO, final

from scaleml.clock import WALL
from scaleml.escaping import printable
from scaleml.frameworks.current_rank import current_rank

CHUNK: Final = 64 * 1024
"""Characters that go at once."""
_MOST: Final = 16 * CHUNK
"""Characters that may wait to be sent: whoever prints more then waits, as at a pipe."""
_COLOURS: Final = re.compile("\x1b\\[[0-9;]*m")
_AGAIN: Final = 0.1
_PAUSE: Final = 0.01
_UNENDED: Final = 1.0
"""Seconds after which a line is shown that has no end yet."""

Lines = list[tuple[str, str]]
"""(Stream, text without its end)."""


@final
class OutputLines:
    """What one rank has printed and not sent yet, in lines. Of what a carriage return overwrites, only the last is kept.

    Attributes
    ----------
    on_lines : callable
        Called, at most every tenth of a second, when there are new ones.
    """

    def __init__(self) -> None:
        self.on_lines: Callable[[], None] = _nothing
        self._told = 0.0
        self._ready: Lines = []
        self._waiting = 0
        self._begun = {"stdout": "", "stderr": ""}
        self._since: dict[str, float] = {}
        self._closed = False
        self._lock = threading.Lock()  # a plain one: a thread that is broken off never keeps it

    def write(self, stream: str, text: str) -> None:
        """Take text, from any thread of the rank's; wait while too much of it is not sent yet."""
        with self._lock:
            *whole, rest = (self._begun[stream] + text).split("\n")
            for line in whole:
                self._put(stream, _shown(line))
            self._begun[stream] = _shown(rest, unended=True)
            if whole or not rest:
                self._since.pop(stream, None)
            if rest:
                self._since.setdefault(stream, WALL.now())
            now = WALL.now()
            is_news = bool(whole) and now - self._told > _AGAIN
            self._told = now if is_news else self._told
        if is_news:
            self.on_lines()
        while self._waiting > _MOST and not self._closed:
            WALL.sleep(_PAUSE)

    def drain(self, everything: bool = False) -> Lines:
        """Take out lines to be sent: some, or what is left."""
        with self._lock:
            for stream, since in list(self._since.items()):
                if everything or WALL.now() - since > _UNENDED:
                    del self._since[stream]
                    line, self._begun[stream] = _shown(self._begun[stream]), ""
                    if line:
                        self._put(stream, line)
            count, size = 0, 0
            while count < len(self._ready) and (everything or size < CHUNK):
                size += len(self._ready[count][1]) + 1
                count += 1
            taken, self._ready = self._ready[:count], self._ready[count:]
            self._waiting -= size
        return taken

    def close(self) -> None:
        """Have nobody wait any more."""
        self._closed = True

    def _put(self, stream: str, line: str) -> None:
        line = printable(_COLOURS.sub("", line))
        for start in range(0, max(1, len(line)), CHUNK):
            part = line[start : start + CHUNK]
            self._ready.append((stream, part))
            self._waiting += len(part) + 1


def _nothing() -> None:
    pass


def _shown(line: str, unended: bool = False) -> str:
    r"""Return what a terminal shows of a line with carriage returns.

    Examples
    --------
    >>> _shown("10%\r50%\r"), _shown("a\r\n"[:-1]), _shown("10%\r50%", unended=True)
    ('50%', 'a', '50%')
    """
    if "\r" not in line:
        return line
    kept = [part for part in line.split("\r") if part]
    last = kept[-1] if kept else ""
    return f"{last}\r" if unended and line.endswith("\r") else last


@final
class _Stream(io.TextIOBase):
    """Stands for ``sys.stdout`` or ``sys.stderr`` while ranks are here. Handlers that logging has made with it outlive a program."""

    encoding = "utf-8"

    def __init__(self, name: str) -> None:
        self.stream = name
        self.original: TextIO | None = None

    def write(self, text: str) -> int:
        rank = current_rank()
        if rank is not None:
            rank.write(self.stream, str(text))
        elif (original := self.original or getattr(sys, f"__{self.stream}__")) is not None:
            original.write(text)
        return len(text)

    def flush(self) -> None:
        if self.original is not None and current_rank() is None:
            self.original.flush()

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return False

    def fileno(self) -> int:
        return (self.original or getattr(sys, f"__{self.stream}__")).fileno()


class _Capture:
    """What this process's ranks have set up together."""

    lock: Final = threading.Lock()
    streams: Final = {name: _Stream(name) for name in ("stdout", "stderr")}
    ranks = 0
    level = logging.WARNING


@contextlib.contextmanager
def captured() -> Iterator[None]:
    """Have ranks in this process print to their clients while the block runs.

    Logging that they set up goes again with the last of them: in the next program ``logging.basicConfig`` works as in this one.
    """
    with _Capture.lock:
        if _Capture.ranks == 0:
            _Capture.level = logging.root.level
            for name, stream in _Capture.streams.items():
                stream.original = getattr(sys, name)
                setattr(sys, name, stream)
        _Capture.ranks += 1
    try:
        yield
    finally:
        with _Capture.lock:
            _Capture.ranks -= 1
            if _Capture.ranks == 0:
                _restore()


def _restore() -> None:
    streams = _Capture.streams
    for name, stream in streams.items():
        if getattr(sys, name) is stream:
            setattr(sys, name, stream.original)
        stream.original = None
    for logger in [logging.root, *logging.root.manager.loggerDict.values()]:
        if not isinstance(logger, logging.Logger):
            continue
        for handler in list(logger.handlers):
            if isinstance(handler, logging.StreamHandler) and handler.stream in streams.values():
                logger.removeHandler(handler)
                logging.root.setLevel(_Capture.level)
