"""Command sender: numbers what a run is told, brings it to rank 0, waits until it has taken effect, and knows the plan in force."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import EllipsisType
from typing import Final, TypedDict, final

from scaleml.api.elastic import ElasticWorkers
from scaleml.api.run_waiter import RunWaiter
from scaleml.api.settings import Change, check_kind, live_settings
from scaleml.api.strategy_switch import keeps_ranks, next_generation
from scaleml.cluster.driver import Driver
from scaleml.cluster.placement import Workers, range_of
from scaleml.cluster.shrinking import WorkerRange
from scaleml.optim import Optimizer
from scaleml.runtime.commands import Command
from scaleml.runtime.plan import Plan
from scaleml.strategies import Strategy

_ACKNOWLEDGE: Final = 30.0
"""Seconds for a command to take effect."""
_BETWEEN: Final = ("starting", "recovering")
"""States in which no ranks listen yet."""
_PATIENCE: Final = 5.0
"""Seconds that a stop waits for a start: most take a tenth of one."""


class _Fields(TypedDict, total=False):
    """Fields of a plan that can change in mid-run."""

    strategy: Strategy
    optimizer: Optimizer
    batch_size: int


@dataclass(frozen=True)
class _Update:
    """A command that changes a generation's plan."""

    planned: int
    number: int
    fields: _Fields


@final
class CommandSender(RunWaiter):
    """Tells the ranks of one run what to do. Any thread may; commands have one order.

    Parameters
    ----------
    driver : Driver
        The run's.
    is_own : bool
        Whether scaleml started the cluster.

    Attributes
    ----------
    sent : int
        How many commands the ranks were told.
    elastic : ElasticWorkers
        Has the run go on with workers that join, and without those that leave.
    """

    is_detached: Final = False

    def __init__(self, driver: Driver, *, is_own: bool = False) -> None:
        self.sent = 0
        self._is_own = is_own
        self._driver = driver
        super().__init__(driver)
        self._updates: list[_Update] = []
        self._sending = threading.RLock()
        self.elastic = ElasticWorkers(driver, self)

    def plan(self, *, applied: bool) -> Plan:
        """Return the plan with what has been changed since: as it is, or as it will be once all commands have taken effect."""
        now = self._driver.generation
        fields: _Fields = {}
        for update in tuple(self._updates):
            if update.planned == now.planned and (not applied or self._driver.has_applied(update.number)):
                fields.update(update.fields)
        return replace(now.plan, **fields) if fields else now.plan

    def stop(self) -> None:
        """End the run at a step boundary, or give its start up; return when it is over."""
        if not self.wait_until(lambda: self._driver.state not in _BETWEEN, _PATIENCE):
            self._driver.cancel_start()
        elif self._send("stop", {}, {}) is None:
            self.wait_until(self._is_over, _ACKNOWLEDGE)
            return
        self.wait_until(self._is_over, None)

    def tell(self, verb: str, settings: Mapping[str, object] | None = None, fields: _Fields | None = None) -> None:
        """Tell the ranks something; return when all have done it.

        Parameters
        ----------
        verb : str
            Of the `Command`.
        settings : mapping, optional
            The command's.
        fields : optional
            What that changes in the plan.

        Raises
        ------
        RuntimeError
            When the run is over.
        TimeoutError
            When the ranks do not come to a step boundary.
        """
        self._refuse_if_over(verb)
        self._await_ranks()
        number = self._send(verb, settings or {}, fields or {})
        if number is None:
            self.wait_until(self._is_over, _ACKNOWLEDGE)
        elif not self.wait_until(lambda: self._is_over() or self._driver.has_applied(number), _ACKNOWLEDGE):
            raise TimeoutError(
                f"{verb} has not taken effect after {_ACKNOWLEDGE:g} s: the ranks have not come to a step boundary since; "
                "it takes effect at the next one"
            )

    def update(
        self,
        strategy: Strategy | None,
        learning_rate: float | None,
        batch_size: int | None,
        workers: Workers | EllipsisType = ...,
    ) -> None:
        """Change settings in mid-run; see `Run.update`."""
        if strategy is not None:
            check_kind("strategy", strategy)
        plan = self.plan(applied=False)
        if plan.optimizer.takes_all_rows and (batch_size is not None or strategy is not None):
            raise ValueError(
                f"this run's {plan.optimizer!r} steps on all rows, under the strategy it began with: start another run for another "
                "strategy or batch_size"
            )
        switches = strategy is not None and not keeps_ranks(plan.strategy, strategy, plan.layout.workers)
        hands_over = switches or workers is not ...
        change = live_settings(learning_rate, batch_size, None if hands_over else strategy, plan.rows)
        fields: _Fields = {}
        if "learning_rate" in change:
            fields["optimizer"] = plan.optimizer.with_rate(change["learning_rate"])
        if "batch_size" in change:
            fields["batch_size"] = change["batch_size"]
        if hands_over:
            self._hand_over(strategy or plan.strategy, workers, change, fields)
            if workers is not ...:
                self._allow(workers)
            return
        if strategy is not None:
            fields["strategy"] = strategy
        if change:
            self.tell("update", change, fields)

    def hand_over_to(self, workers: Sequence[str]) -> None:
        """Have ranks on these workers go on, under the same strategy."""
        self._hand_over(self.plan(applied=False).strategy, list(workers), {}, {})

    def _allow(self, workers: Workers) -> None:
        """Have the run keep to what it was told: as many as it has now, or from how many to how many."""
        driver, between = self._driver, range_of(workers)
        if between is None:
            driver.allowed = driver.allowed.after_update(len(driver.generation.training))
        else:
            driver.allowed = WorkerRange(*between, shrinks=driver.plan.replaces_lost, grows=True)
            self.elastic.start()

    def _hand_over(
        self,
        strategy: Strategy,
        workers: Workers | EllipsisType,
        change: Change,
        fields: _Fields,
    ) -> None:
        """Have other ranks go on from where these are; first change what else is to."""
        driver = self._driver
        with self._sending:
            self._refuse_if_over("update")
            self._await_ranks()
            # What cannot be is told before anything changes.
            before = self.plan(applied=False)
            following = next_generation(replace(before, **fields), strategy, workers, driver, is_own=self._is_own)
            if change:
                self.tell("update", change, fields)
            is_same = strategy == before.strategy
            if is_same and following.change is None:
                return
            generation = driver.generation.number
            driver.hand_over.prepare(following)
            self.tell("switch", {"same_strategy": is_same})
            # The new ranks have a deadline of their own.
            self.wait_until(lambda: self._is_over() or self._runs_since(generation), None)

    def _await_ranks(self) -> None:
        """Wait until ranks listen.

        Raises
        ------
        TimeoutError
            When they do not come to it.
        """
        if not self.wait_until(lambda: self._driver.state not in _BETWEEN, _ACKNOWLEDGE):
            raise TimeoutError(f"the run is still starting after {_ACKNOWLEDGE:g} s; stop() gives it up")

    def _runs_since(self, generation: int) -> bool:
        return self._driver.generation.number > generation and self._driver.state not in _BETWEEN

    def _refuse_if_over(self, verb: str) -> None:
        if self._is_over():
            raise RuntimeError(f"the run is {self._driver.state}: it can no longer be told to {verb}; start a new one")

    def _send(self, verb: str, settings: Mapping[str, object], fields: _Fields) -> int | None:
        """Bring a command to rank 0 and return its number; None if nobody is there to hear it."""
        with self._sending:  # ranks apply commands by number: none may be left out
            number = self.sent + 1
            if not self._is_over() and not self._driver.send(Command(number, verb, dict(settings))):
                return None
            self.sent = number
            if fields:
                self._updates.append(_Update(self._driver.generation.planned, number, fields))
            return number
