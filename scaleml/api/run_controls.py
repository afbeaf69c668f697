"""What a run can be told: to pause, to go on, to end, to change, to break; and the wait for its end."""

from __future__ import annotations

from types import EllipsisType
from typing import Self

from scaleml.api.run_facts import RunFacts
from scaleml.api.sender import Sender
from scaleml.api.validation import ClusterFacts, check_faults
from scaleml.callbacks.followers import Followers
from scaleml.cluster import calls
from scaleml.cluster.errors import RunFailed
from scaleml.cluster.events import OVER, RunState
from scaleml.cluster.placement import Workers
from scaleml.cluster.run_driver import RunDriver
from scaleml.cluster.secede import seceded
from scaleml.faults import Fault
from scaleml.runtime.serialization import describe
from scaleml.strategies import Strategy


class RunControls:
    """The part of a `Run` by which it is told what to do."""

    _driver: RunDriver
    _facts: RunFacts
    _sender: Sender
    _followers: Followers
    skipped: bool
    interrupted: bool

    @property
    def state(self) -> RunState:
        """``starting``, ``running``, ``paused``, ``recovering``, ``finished``, ``stopped`` or ``failed``."""
        return self._driver.state

    @property
    def over(self) -> bool:
        """Whether the run has ended, one way or another."""
        return self.state in OVER

    @property
    def error(self) -> str | None:
        """Why the run failed: rank, worker, step and cause; None unless it did."""
        return self._facts.explained(self._driver.error)

    @seceded()
    def wait(self, timeout: float | None = None) -> Self:
        """Wait for the end and return the run; after Ctrl-C, which stops it cleanly, in state ``stopped``; a detached run goes on.

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
            if not self._sender.wait_until(lambda: self.over, timeout):
                raise TimeoutError(f"the run is still {self.state} after {timeout} s; stop() ends it")
        except KeyboardInterrupt:
            if self._sender.is_detached:
                raise
            self.interrupted = is_told_to_stop = True
        else:
            is_told_to_stop = False
        if is_told_to_stop:  # not above: a second Ctrl-C need not tell of the first
            self.stop()
        self._driver.join()
        self.interrupted |= not self._followers.join()
        if self.state == "failed":
            raise RunFailed(self.error or "no error was recorded")
        return self

    def pause(self) -> None:
        """Park all ranks at one step boundary; returns when they are there."""
        self._sender.tell("pause")

    def resume(self) -> None:
        """Go on after a pause."""
        self._sender.tell("resume")

    def stop(self) -> None:
        """End the run at a step boundary, the same on all ranks; returns when it is over, with its parameters."""
        if not self.over:
            self._sender.stop()
        self._followers.join()

    def skip(self) -> None:
        """End the run like `stop`; a comparison goes on with its next run."""
        self.skipped = True
        self.stop()

    def update(
        self,
        *,
        strategy: Strategy | None = None,
        learning_rate: float | None = None,
        batch_size: int | None = None,
        workers: Workers | EllipsisType = ...,
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
        workers : int, list of addresses or names, or None, optional
            Another number of ranks that train, or other workers; None for all there are. They hand over to others at a boundary, which
            takes about as long as a start. The batches have the same rows as before: where ranks sum their gradients the result
            differs by rounding. What is each rank's own is averaged, and what a codec has not sent is left behind. ``(2, 8)``
            takes as many as there are in between.

        Raises
        ------
        ValueError, TypeError
            For a value that breaks its rule, or more workers than there are: before anything has changed.

        Examples
        --------
        >>> run.update(workers=4)  # doctest: +SKIP
        >>> run.update(strategy=scaleml.LocalSGD(8), workers=None)  # doctest: +SKIP
        """
        self._sender.update(strategy, learning_rate, batch_size, workers)

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
        driver = self._driver
        workers = calls.identity(driver.client)
        cluster = ClusterFacts.of(driver.client, workers, driver.placement, is_own=self._facts.own_cluster)
        check_faults([fault], driver.placement, cluster)
        self._sender.tell("inject", describe(fault))
