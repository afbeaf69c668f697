"""Waiting for a run: until its state, or what it was told, is as somebody wants it."""

from __future__ import annotations

import threading
from collections.abc import Callable

from scaleml.clock import WALL
from scaleml.cluster.events import OVER
from scaleml.cluster.run_driver import RunDriver


class RunWaiter:
    """The part of a `Sender` that waits: woken whenever something has changed.

    Parameters
    ----------
    driver : RunDriver
        Who drives the run.
    """

    def __init__(self, driver: RunDriver) -> None:
        self._watched = driver
        self._changed = threading.Condition()

    def on_change(self) -> None:
        """Wake whoever waits: the run's state has changed, or a command has taken effect."""
        with self._changed:
            self._changed.notify_all()

    def wait_until(self, condition: Callable[[], bool], timeout: float | None) -> bool:
        """Wait until `condition` holds, looked at after each change; return whether it does.

        Raises
        ------
        RuntimeError
            Where nothing will ever change: in a child that was forked off the run's process.
        """
        deadline = None if timeout is None else WALL.now() + timeout
        with self._changed:
            while not condition():
                if not self._watched.is_alive and not condition():
                    raise RuntimeError(
                        "the run belongs to the process that this one was forked from: wait for it and tell it what to do there"
                    )
                left = 1.0 if deadline is None else min(1.0, deadline - WALL.now())
                if left <= 0:
                    return False
                self._changed.wait(left)
        return True

    def _is_over(self) -> bool:
        return self._watched.state in OVER
