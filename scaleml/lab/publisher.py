"""Publisher: the one thread that sets what widgets show, at most ten times a second."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import final

from scaleml.clock import WALL, cpu_seconds

PERIOD = 0.1
"""Seconds between two repaints, at least."""
SHARE = 0.1
"""Of one core, at most: where repainting is dear it happens less often."""

logger = logging.getLogger(__name__)


@final
class Publisher:
    """Repaints when woken, and goes on as long as there is something live.

    Parameters
    ----------
    repaint : callable
        Shows the state of things; returns whether it will have changed by itself a moment later.
    """

    def __init__(self, repaint: Callable[[], bool]) -> None:
        self._repaint = repaint
        self._awake = threading.Event()
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def wake(self) -> None:
        """Have something shown soon; returns at once."""
        self._awake.set()
        with self._lock:
            if self._thread is None and not self._ended.is_set():
                self._thread = threading.Thread(target=self._publish, name="scaleml-lab-publish", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Repaint once more and end the thread."""
        self._ended.set()
        self._awake.set()
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.join()

    def _publish(self) -> None:
        ended = False
        while not ended:
            self._awake.wait()
            self._awake.clear()
            ended = self._ended.is_set()  # before the last repaint
            begun, used = WALL.now(), cpu_seconds()
            try:
                if self._repaint():
                    self._awake.set()
            except Exception:
                logger.exception("the lab could not repaint")
            spent, used = WALL.now() - begun, cpu_seconds() - used
            self._ended.wait(max(PERIOD, used / SHARE) - spent)
