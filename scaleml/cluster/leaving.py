"""A worker that is about to close: its ranks get a moment in which they hand over to others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, TypeAlias, final

from distributed import Worker
from distributed.diagnostics.plugin import WorkerPlugin

from scaleml.clock import WALL

GRACE: Final = 2.0
"""Seconds that a closing worker waits for its ranks to hand over; who says that a spot instance is to go gives more."""
_NAME: Final = "scaleml-leaving"
Counts: TypeAlias = Callable[[], int]


@final
class RanksLeave(WorkerPlugin):
    """Holds the end of its worker up until no rank is there, for a moment.

    Parameters
    ----------
    count : callable
        Says how many ranks there are in this process.
    """

    def __init__(self, count: Counts) -> None:
        self._count = count

    async def teardown(self, worker: Worker) -> None:
        """Wait for the ranks."""
        until = WALL.now() + GRACE
        while self._count() and WALL.now() < until:
            await asyncio.sleep(0.02)


def let_ranks_leave(worker: Worker, count: Counts) -> None:
    """Have a worker wait for its ranks when it closes."""
    if _NAME not in worker.plugins:
        worker.plugins[_NAME] = RanksLeave(count)
