"""What brings the commands of a process that has attached to a detached run to the worker that drives it."""

from __future__ import annotations

from collections.abc import Mapping
from types import EllipsisType
from typing import Final, final

from scaleml.api.detached_driver import COMMAND, EVERY, DetachedDriver, NotThere
from scaleml.api.run_waiter import RunWaiter
from scaleml.clock import WALL
from scaleml.cluster.placement import Workers
from scaleml.runtime.plan import Plan
from scaleml.strategies import Strategy


@final
class DetachedSender(RunWaiter):
    """Brings commands to a detached run; a `Sender`.

    Parameters
    ----------
    driver : DetachedDriver
        The run's, as it is followed here.
    """

    is_detached: Final = True

    def __init__(self, driver: DetachedDriver) -> None:
        self._driver = driver
        super().__init__(driver)

    def plan(self, *, applied: bool) -> Plan:
        """Return the plan in force, as far as it is known here."""
        return self._driver.plan_in_force

    def stop(self) -> None:
        """End the run; return when it is over."""
        self.tell("stop")
        self.wait_until(self._is_over, None)

    def tell(self, verb: str, settings: Mapping[str, object] | None = None) -> None:
        """Tell the run something; return when it has done it.

        Raises
        ------
        RuntimeError
            When the run is over.
        TimeoutError
            When nobody drives it: the worker that did was lost.
        """
        deadline = WALL.now() + COMMAND
        while not self._is_over():
            try:
                self._driver.tell(verb, dict(settings or {}))
                return
            except NotThere:
                if WALL.now() > deadline:
                    raise TimeoutError(
                        f"{verb} was not heard within {COMMAND:g} s: the worker that drove {self._driver.name!r} was lost, and no other "
                        "one has begun it again"
                    ) from None
                self.wait_until(self._is_over, EVERY)
        if verb != "stop":
            why = self._driver.error or "start a new one"
            raise RuntimeError(f"the run is {self._driver.state}: it can no longer be told to {verb}; {why}")

    def update(
        self,
        strategy: Strategy | None,
        learning_rate: float | None,
        batch_size: int | None,
        workers: Workers | EllipsisType = ...,
    ) -> None:
        """Change settings in mid-run; see `Run.update`."""
        given = {"strategy": strategy, "learning_rate": learning_rate, "batch_size": batch_size}
        told: dict[str, object] = {name: value for name, value in given.items() if value is not None}
        self.tell("update", told if workers is ... else told | {"workers": workers})
