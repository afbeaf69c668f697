"""Reporter: what a rank tells the client, if only that it lives, through its worker's event loop; there it also looks whether to go on."""

from __future__ import annotations

import math
import threading
from typing import Final

from distributed import Worker

from scaleml.clock import WALL
from scaleml.cluster.endpoint import Endpoint
from scaleml.cluster.event_router import TOPIC
from scaleml.cluster.events import Beat, Printed, RankEvent, Recorded, message_of, rank_event
from scaleml.cluster.leaving import GRACE
from scaleml.cluster.rank_output import OutputLines
from scaleml.telemetry.recorder import Recorder

PERIOD: Final = 0.1
"""Seconds between two looks."""
_SOON: Final = 0.01
"""Seconds between two looks whether a rank that goes on after a loss is past the step of it."""
BEAT: Final = 1.0
"""Seconds without another event after which a rank tells that it lives."""
_CLOSING: Final = ("closing_gracefully", "closing")


class Reporter:
    """Sends a rank's events and its history, and notices that its task was cancelled or its worker closed.

    Parameters
    ----------
    worker : distributed.Worker
        Where the rank runs.
    key : str
        The rank's Dask task.
    endpoint : Endpoint
        What to abort when the rank is no longer wanted.
    output : OutputLines, optional
        What the rank prints, which is sent as well.
    timeout : float
        Seconds of silence after which a rank is suspected to be stalled: it beats four times in that, if not more often.
    awaited : int, optional
        A step of which the client is to hear at once: of a rank that goes on after a loss, the one at which that was.
    """

    def __init__(
        self,
        worker: Worker,
        key: str,
        endpoint: Endpoint,
        output: OutputLines | None = None,
        *,
        timeout: float = 4 * BEAT,
        awaited: int | None = None,
    ) -> None:
        self._worker = worker
        self._key = key
        self._endpoint = endpoint
        self._output = output
        self._beat = min(BEAT, timeout / 4)
        self._told = WALL.now()
        self._recorder: Recorder | None = None
        self._closes_since = math.inf
        self._stopped = threading.Event()
        self._draining = threading.Lock()
        worker.loop.add_callback(self._tick)
        if awaited is not None:
            worker.loop.add_callback(self._await, awaited)

    def listen_to(self, recorder: Recorder) -> None:
        """Send what this recorder notes."""
        self._recorder = recorder

    def report(self, kind: str, **facts: object) -> None:
        """Tell the run's supervisor something, at once: the runtime's `Report`; the kinds are those of `rank_event`."""
        self.send(rank_event(kind, {"rank": self._endpoint.request.rank, **facts}))

    def send(self, event: RankEvent) -> None:
        """Tell the run's supervisor of an event, at once."""
        request = self._endpoint.request
        self._told = WALL.now()
        self._worker.log_event(TOPIC, message_of(event, request.run, request.generation))

    def send_records(self) -> None:
        """Send what is new in the history."""
        if self._recorder is None:
            return
        # The rank's thread and the event loop both come here: what one has drained must be on its way before the other goes on.
        with self._draining:
            rows, evaluations = self._recorder.drain()
            epochs = self._recorder.drain_epochs()
            if rows or evaluations or epochs:
                self.send(Recorded(self._endpoint.request.rank, rows, evaluations, epochs))

    def send_output(self, everything: bool = False) -> None:
        """Have the event loop send what was printed: all lines and events go through it in the order in which they were given."""
        if self._output is not None:
            self._worker.loop.add_callback(self._send_lines, everything)

    def stop(self) -> None:
        """Send the last records and fall silent."""
        self._stopped.set()
        self.send_records()
        self.send_output(everything=True)

    def _tick(self) -> None:
        if self._stopped.is_set():
            return
        self.send_records()
        self._send_lines()
        if WALL.now() - self._told > self._beat:
            self.send(Beat(self._endpoint.request.rank))
        reason = self._why_unwanted()
        if reason is not None:
            self._endpoint.abort(reason)
        self._worker.loop.call_later(PERIOD, self._tick)

    def _await(self, step: int) -> None:
        if self._recorder is not None and self._recorder.step > step:
            self.send_records()
        elif not self._stopped.is_set():
            self._worker.loop.call_later(_SOON, self._await, step)

    def _send_lines(self, everything: bool = False) -> None:
        if self._output is None:
            return
        lines = self._output.drain(everything)
        if lines:
            self.send(Printed(self._endpoint.request.rank, lines))

    @property
    def is_wanted(self) -> bool:
        """Whether Dask still waits for the rank's task: not where its client is gone, or has cancelled it."""
        task = self._worker.state.tasks.get(self._key)
        return task is not None and task.state in ("executing", "long-running")

    def _why_unwanted(self) -> str | None:
        if not self.is_wanted:
            return "the run's client closed, or its task was cancelled"
        if self._worker.status.name not in ("running", "paused", "init", "starting"):
            self._closes_since = min(self._closes_since, WALL.now())
            if self._worker.status.name in _CLOSING and WALL.now() < self._closes_since + GRACE:
                return None
            return f"the Dask worker {self._worker.address} is {self._worker.status.name}"
        return None
