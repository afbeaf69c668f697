"""Heard ranks: who has told something since somebody looked last."""

from __future__ import annotations

import threading
from typing import final


@final
class HeardRanks:
    """Ranks, added on the client's event loop and taken by the driver's thread."""

    def __init__(self) -> None:
        self._ranks: set[int] = set()
        self._lock = threading.Lock()

    def add(self, rank: int) -> None:
        """Note that a rank has told something."""
        with self._lock:
            self._ranks.add(rank)

    def take(self) -> frozenset[int]:
        """Return who has told something since the last call."""
        with self._lock:
            heard, self._ranks = frozenset(self._ranks), set()
        return heard
