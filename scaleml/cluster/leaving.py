"""A worker that is about to close: its ranks get a moment in which they hand over to others."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable
from types import FrameType
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
        if not worker.nanny:
            _close_on_notice(worker)


def _close_on_notice(worker: Worker) -> None:
    """Have ``dask worker --no-nanny`` close at SIGTERM and Ctrl-C: by itself it ends at once, and nobody hears of it before.

    Only where Dask's own handler is installed: other programs with a worker inside have handlers that are not ours to replace.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    for number in (signal.SIGTERM, signal.SIGINT):
        before = signal.getsignal(number)
        if not callable(before) or getattr(before, "__module__", None) != "distributed._signals":
            continue

        def close(number: int, frame: FrameType | None, before: Callable[..., object] = before) -> None:
            async def closed() -> None:
                try:
                    await worker.close(reason=f"signal-{number}")
                finally:
                    before(number, None)  # Dask's ends the process

            signal.signal(number, before)  # who sends it again does not wait
            worker.loop.add_callback(closed)

        signal.signal(number, close)
