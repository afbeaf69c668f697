"""Read-ahead of a shard that its rank owns in part: what the next batch will want, and no other row."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from typing import Protocol, final

from scaleml.data.piece import Arrays
from scaleml.data.stream import Prefetch


class RowReader(Protocol):
    """What has rows by number."""

    rows: int

    def read_rows(self, start: int, stop: int) -> Arrays:
        """Read some rows."""


@final
class ReadAhead:
    """The rows of a shard as they are wanted: one part of a batch in use, the next on its way.

    Parameters
    ----------
    reader : RowReader
        Of the shard.
    prefetch : Prefetch
        Whose thread reads.
    """

    def __init__(self, reader: RowReader, prefetch: Prefetch) -> None:
        self.rows = reader.rows
        self._reader = reader
        self._prefetch = prefetch
        self._here: tuple[int, int, Future[Arrays]] | None = None
        self._next: tuple[int, int, Future[Arrays]] | None = None

    def take(self, start: int, stop: int) -> Arrays:
        """Return rows ``start:stop``: X, y and weights."""
        for found in (self._here, self._next):
            if found is not None and found[:2] == (start, stop):
                self._here = found
                return found[2].result()
        self._here = start, stop, self._prefetch.read_rows(self._reader.read_rows, start, stop)
        return self._here[2].result()

    def ahead(self, start: int, stop: int) -> None:
        """Have rows read that will most likely be wanted next."""
        if stop > start and (self._next is None or self._next[:2] != (start, stop)):
            self._next = start, stop, self._prefetch.read_rows(self._reader.read_rows, start, stop)

    def blocks(self) -> Iterator[Arrays]:
        """Yield all rows once."""
        yield self._reader.read_rows(0, self.rows)
