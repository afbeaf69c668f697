"""Elastic workers: a thread that has a run go on with workers that have joined, and without those that are leaving."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Final, Protocol, final

from scaleml.clock import WALL
from scaleml.cluster import calls
from scaleml.cluster.driver import Driver
from scaleml.cluster.errors import StartFailed
from scaleml.cluster.placement import usable

_log = logging.getLogger(__name__)

LOOK: Final = 0.5
"""Seconds between two looks for workers that have joined."""
SETTLE: Final = 1.0
"""Seconds without another one that joins: then all of them are taken by one hand-over."""
PAUSE: Final = 3.0
"""Seconds of training between two hand-overs to more ranks."""
_AGAIN: Final = 20.0
"""Seconds after which a worker that could not be used is tried again: it may have been busy."""
_LOSS: Final = 0.3
"""Seconds in which a worker that is retired, and has nothing to move, is gone: then the run recovers from its loss."""


class HandsOver(Protocol):
    """Tells a run's ranks."""

    def hand_over_to(self, workers: Sequence[str]) -> None:
        """Have ranks on these workers go on."""

    def wait_until(self, condition: Callable[[], bool], timeout: float | None) -> bool:
        """Wait until a condition holds; return whether it does."""


@final
class ElasticWorkers:
    """Follows the workers of a run.

    Parameters
    ----------
    driver : Driver
        The run's.
    sender : HandsOver
        The run's.
    """

    def __init__(self, driver: Driver, sender: HandsOver) -> None:
        self._driver = driver
        self._sender = sender
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._woken = threading.Event()
        self._is_over = False
        self._refused: dict[str, float] = {}
        self._free: list[str] = []
        self._short = 0
        self._since = self._handed_over = WALL.now()
        driver.reports.when_leaving = self.wake

    def start(self) -> None:
        """Look for workers that join, if the run takes them."""
        if self._driver.allowed.grows:
            self.wake()

    def wake(self) -> None:
        """Look now; from any thread."""
        with self._lock:
            if not self._is_over and self._thread is None:
                self._thread = threading.Thread(
                    target=self._follow, name=f"scaleml-workers-{self._driver.name}", daemon=True
                )
                self._thread.start()
            self._woken.set()

    def close(self) -> None:
        """End: the run is over."""
        with self._lock:
            self._is_over = True
            self._woken.set()

    def _follow(self) -> None:
        while not self._is_over:
            self._woken.clear()
            for look in (self._leave, self._grow):
                try:
                    look()
                except (StartFailed, ValueError, TypeError) as error:  # such a worker cannot be used
                    _log.info("run %s: goes on with the workers that it has: %s", self._driver.name, error)
                    self._refused |= dict.fromkeys(self._free, WALL.now() + _AGAIN)
                except (OSError, RuntimeError) as error:
                    _log.info("run %s: no hand-over: %s", self._driver.name, error)
            self._woken.wait(LOOK if self._looks_for_more else None)

    @property
    def _training(self) -> tuple[str, ...]:
        return self._driver.generation.training

    def _leave(self) -> None:
        """Hand over to those who stay, and to whoever is free, when a worker is about to go."""
        driver, leaving = self._driver, self._driver.reports.leaving
        servers = driver.placement.addresses[len(self._training) :]
        if not leaving & {*driver.placement.workers} or leaving & {*servers}:
            return  # what a server hands over could not be fetched from a worker that closes
        if self._sender.wait_until(lambda: driver.state not in ("running", "paused"), _LOSS):
            return
        before, least = len(self._training), driver.allowed.least_after_leaving
        stay = [address for address in self._training if address not in leaving]
        if len(stay) < least:  # others have to be looked at first: that takes longer
            stay += self._unused()[: least - len(stay)]
        if len(stay) >= min(least, before):
            _log.info("run %s: hands over from workers that leave: %s", driver.name, ", ".join(sorted(leaving)))
            self._hand_over(stay)
            self._short += 0 if driver.allowed.shrinks else before - len(stay)

    def _grow(self) -> None:
        """Hand over to more ranks when workers have joined, of a fixed number in place of those that have left."""
        driver, now = self._driver, WALL.now()
        if not self._looks_for_more or driver.state != "running":
            return
        most = driver.allowed.most if driver.allowed.grows else len(self._training) + self._short
        free = self._unused()[: max(0, most - len(self._training))]
        if free != self._free:
            self._free, self._since = free, now
        if free and now >= self._since + SETTLE and now >= self._handed_over + PAUSE:
            _log.info("run %s: takes workers that have joined: %s", driver.name, ", ".join(free))
            self._hand_over([*self._training, *free])
            self._free, self._short = [], max(0, self._short - len(free))

    @property
    def _looks_for_more(self) -> bool:
        return self._driver.allowed.grows or self._short > 0

    def _hand_over(self, workers: Sequence[str]) -> None:
        try:
            self._sender.hand_over_to(workers)
        finally:
            self._handed_over = WALL.now()

    def _unused(self) -> list[str]:
        """Return the workers that the run could use beside its own."""
        driver = self._driver
        info = calls.identity(driver.client)
        refused = {address for address, until in self._refused.items() if WALL.now() < until}
        unfit = {*driver.placement.workers, *driver.reports.leaving, *refused}
        return [
            address
            for address in usable(info, driver.placement.resources)
            if address not in unfit and info[address].get("status", "running") == "running"
        ]
