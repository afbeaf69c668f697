"""A run: what a user holds while ranks train, and afterwards."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any, final

from scaleml import strategies
from scaleml.api.fault_validation import check_faults, check_victims
from scaleml.api.settings import live_settings
from scaleml.api.strategy_switch import same_ranks
from scaleml.api.trained_model import TrainedModel
from scaleml.cluster.driver import Driver
from scaleml.cluster.errors import RunFailed
from scaleml.cluster.secede import seceded
from scaleml.faults import Fault
from scaleml.runtime.commands import Command, describe
from scaleml.runtime.plan import Outcome
from scaleml.telemetry import History, Ledger
from scaleml.telemetry.bundle import bundle
from scaleml.telemetry.report import run_fragment, run_text

Trained = Callable[[Any], TrainedModel]  # from parameters to what predicts with them
_ACKNOWLEDGE = 30.0
_PATIENCE = 5.0  # seconds that a stop waits for a start: most take a tenth of one


@final
class Run:
    """One training run, live or over. Made by ``scaleml.start`` and ``scaleml.train``.

    Attributes
    ----------
    label : str
        The strategy (and what a ``Trial`` changed), as its repr.
    history : History
        What happened, row by row; grows while the run lives.
    workers, threads, cores : int
        Ranks that train, BLAS threads of each, cores of the hosts.
    placing_seconds : float
        What stands beside a cold start: bringing the data to the workers, placing the ranks.
    total_samples : int
        Rows that all ranks together will have consumed at the end.
    settings : str
        Optimizer, batch, epochs, in words.
    """

    def __init__(
        self, driver: Driver, *, label: str, trained: Trained, facts: dict[str, Any], own_cluster: bool
    ) -> None:
        self.label = label
        self.history = History()
        self.threads = driver.placement.threads
        self.workers = driver.placement.layout.workers
        self.hosts = int(facts["hosts"])
        self.cores = int(facts["cores"])
        self.is_serial = isinstance(driver.plan.strategy, strategies.Serial)
        self.total_samples = driver.plan.goal
        self.settings = (
            f"{driver.plan.optimizer!r}, batch {driver.plan.batch_size}, {driver.plan.epochs} epochs of "
            f"{driver.plan.rows} rows, {driver.plan.dtype}{driver.plan.form}"
        )
        self.n_params = driver.plan.network.size
        self.placing_seconds = float(facts["placing_seconds"])
        self.plan = driver.plan
        self._driver = driver
        self._trained = trained
        self._own_cluster = own_cluster
        self._changed = threading.Condition()
        self._strategy = driver.plan.strategy
        self._commands = 0
        self._telling = threading.RLock()
        self._closers: list[Callable[[], None]] = []

    def __repr__(self) -> str:
        return f"<Run {self.label}: {self.state}, {self.workers} workers, {self.train_seconds:.2f} s>"

    @property
    def state(self) -> str:
        """``starting``, ``running``, ``paused``, ``finished``, ``stopped`` or ``failed``."""
        return self._driver.state

    @property
    def over(self) -> bool:
        """Whether the run has ended, one way or another."""
        return self.state in ("finished", "stopped", "failed")

    @property
    def error(self) -> str | None:
        """Why the run failed: rank, worker, step and cause; None unless it did."""
        return self._driver.error

    @property
    def params(self) -> Any:
        """The parameters, (P,), once the run is over; of a failed run those of its last good step, if a rank still had them."""
        return self._driver.params

    @property
    def outcome(self) -> Outcome | None:
        """How the rank ended whose parameters these are: its epochs and their losses; None while the run lives."""
        return self._driver.outcome

    @property
    def topology(self) -> str | None:
        """Who sends what to whom, as fixed at the start: ``"ring"``, say; None until then, and where there is no choice."""
        return self._driver.topology

    @property
    def model(self) -> TrainedModel:
        """The trained model, once the run is over.

        Raises
        ------
        RuntimeError
            While the run lives, or when it left no parameters.
        """
        if self.params is None:
            raise RuntimeError(
                f"the run is {self.state} and has no parameters{': ' + self.error if self.error else '; wait() for its end'}"
            )
        return self._trained(self.params)

    @property
    def ledger(self) -> Ledger:
        """Where the time of every rank went, so far."""
        return Ledger(self.history)

    @property
    def train_seconds(self) -> float:
        """The training clock: seconds from the first step, without evaluations and pauses."""
        return self.history.clock(self.workers)

    def peek(self) -> Any:
        """Return the parameters that rank 0 kept last, (P,); None unless the run keeps them and still trains."""
        return self._driver.peek()

    # What it can be told.

    @seceded()
    def wait(self, timeout: float | None = None) -> Run:
        """Wait for the end and return the run; after Ctrl-C, which stops it cleanly, in state ``stopped``.

        Parameters
        ----------
        timeout : float, optional
            Seconds.

        Raises
        ------
        TimeoutError
            When the run still lives after ``timeout``.
        RunFailed
            When the run failed.
        """
        try:
            if not self._await(lambda: self.over, timeout):
                raise TimeoutError(f"the run is still {self.state} after {timeout} s; stop() ends it")
        except KeyboardInterrupt:
            self.stop()
        self._driver.join()
        if self.state == "failed":
            raise RunFailed(self.error)
        return self

    def pause(self) -> None:
        """Park all ranks at one step boundary; returns when they are there."""
        self._tell("pause")

    def resume(self) -> None:
        """Go on after a pause."""
        self._tell("resume")

    def stop(self) -> None:
        """End the run at a step boundary, the same on all ranks; returns when it is over, with its parameters."""
        if not self.over:
            self._tell("stop", until_over=True)

    def update(
        self,
        *,
        strategy: strategies.Strategy | None = None,
        learning_rate: float | None = None,
        batch_size: int | None = None,
    ) -> None:
        """Change settings in mid-run; all ranks apply them at the same step boundary.

        Parameters
        ----------
        strategy : Strategy, optional
            Another strategy, or the same with other settings, for as many ranks that train. It goes on with the same parameters,
            optimizer state (the mean, where ranks had their own) and place in the data, without what a codec has not sent. Where
            roles change, as with `ParameterServer`, the ranks hand over to others: that takes about as long as a start, and
            a paused run has to be resumed first.
        learning_rate : float, optional
            Of the optimizer.
        batch_size : int, optional
            The global batch; more than all rows are all rows.

        Raises
        ------
        ValueError, TypeError
            For a value that breaks its rule.
        """
        settings = live_settings(learning_rate, batch_size)
        if batch_size is not None:
            settings["batch_size"] = min(batch_size, self.plan.rows)
        here = strategy is not None and same_ranks(self._strategy, strategy, self.workers)
        if here:
            settings["strategy"] = describe(strategy)
        elif strategy is not None:
            self._driver.succession(strategy)  # what cannot be is told before anything changes
        if settings:
            self._tell("update", settings)
        if strategy is not None and not here:
            self._switch(strategy)
        self._strategy = strategy or self._strategy

    def inject(self, fault: Fault) -> None:
        """Break something on purpose, from the next step boundary on.

        What lasts can be lifted by another fault of its kind: ``Slow(rank, factor=1)``, ``Latency(rank, 0)``,
        ``Bandwidth(rank, math.inf)``. The history marks when it began.

        Parameters
        ----------
        fault : Fault
            One of ``scaleml.faults``; its ``step`` may already have come.

        Raises
        ------
        ValueError
            For a rank that does not train, or the kill of a worker that scaleml did not start.
        """
        placement = self._driver.placement
        check_faults([fault], placement.layout, self._own_cluster)
        check_victims([fault], placement, self._driver.client)
        self._tell("inject", describe(fault))

    # What it shows.

    def summary(self) -> str:
        """Return a few lines: how it stands, samples a second, losses, and the ledger of every rank."""
        return run_text(self) + (f"\n\n{self.error}" if self.error else "")

    def plot(self) -> Any:
        """Return a matplotlib figure: losses against time and samples, and the ledger."""
        from scaleml.telemetry.figures import runs_figure

        return runs_figure([self])

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        return bundle(self.summary(), run_fragment(self), self.plot)

    # How it works.

    def on_change(self) -> None:
        """Wake whoever waits; called from the driver's thread."""
        if self.over:
            self._close()
        with self._changed:
            self._changed.notify_all()

    def when_over(self, close: Callable[[], None]) -> None:
        """Have ``close`` called at the end, at once if that has come already."""
        self._closers.append(close)
        if self.over:
            self._close()

    def _close(self) -> None:
        with contextlib.suppress(IndexError):  # two threads may come here; each closer is called once
            while True:
                self._closers.pop()()

    def _await(self, condition: Callable[[], bool], timeout: float | None) -> bool:
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while not condition():
                left = 1.0 if deadline is None else min(1.0, deadline - time.monotonic())
                if left <= 0:
                    return False
                self._changed.wait(left)
        return True

    def _tell(self, verb: str, settings: dict[str, Any] | None = None, until_over: bool = False) -> None:
        if self.over:
            raise RuntimeError(f"the run is {self.state}: it can no longer be told to {verb}; start a new one")
        if until_over and not self._await(lambda: self.state != "starting", _PATIENCE):
            self._driver.give_up()
            self._await(lambda: self.over, None)
            return
        if not self._await(lambda: self.state != "starting", _ACKNOWLEDGE):
            raise TimeoutError(f"the run is still starting after {_ACKNOWLEDGE:g} s; stop() gives it up")
        with self._telling:  # ranks apply commands by number: none may be left out
            number = self._commands + 1
            heard = self.over or self._driver.send(Command(number, verb, settings or {}))
            self._commands = number if heard else self._commands
        if heard:
            done = (lambda: self.over) if until_over else (lambda: self.over or self._driver.has_applied(number))
            if not self._await(done, None if until_over else _ACKNOWLEDGE):
                raise TimeoutError(
                    f"{verb} has not taken effect after {_ACKNOWLEDGE:g} s: the ranks have not come to a step boundary since; "
                    "it takes effect at the next one"
                )
        else:
            self._await(lambda: self.over, _ACKNOWLEDGE)

    def _switch(self, strategy: strategies.Strategy) -> None:
        """Have other ranks, on the same workers, go on with another strategy from where these are."""
        if self.state == "paused":
            raise ValueError(f"{strategy!r} needs other ranks than {self._strategy!r}: resume() before they take over")
        driver = self._driver
        with self._telling:
            generation = driver.generation
            driver.follow_with(strategy)
            self._tell("switch")
            # The new ranks have a deadline of their own.
            self._await(lambda: self.over or (driver.generation > generation and self.state != "starting"), None)
