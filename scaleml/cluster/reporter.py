"""Reporter: what a rank tells the client, through its worker's event loop, where it also looks ten times a second whether to go on."""

from __future__ import annotations

import threading
from typing import Final

from distributed import Worker

from scaleml.cluster.endpoint import Endpoint
from scaleml.cluster.event_router import TOPIC
from scaleml.cluster.events import RankEvent, Recorded, message_of, rank_event
from scaleml.telemetry.recorder import Recorder

PERIOD: Final = 0.1
"""Seconds between two looks."""


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
    """

    def __init__(self, worker: Worker, key: str, endpoint: Endpoint) -> None:
        self._worker = worker
        self._key = key
        self._endpoint = endpoint
        self._recorder: Recorder | None = None
        self._stopped = threading.Event()
        self._draining = threading.Lock()
        worker.loop.add_callback(self._tick)

    def listen_to(self, recorder: Recorder) -> None:
        """Send what this recorder notes."""
        self._recorder = recorder

    def report(self, kind: str, **facts: object) -> None:
        """Tell the run's supervisor something, at once: the runtime's `Report`; the kinds are those of `rank_event`."""
        self.send(rank_event(kind, {"rank": self._endpoint.request.rank, **facts}))

    def send(self, event: RankEvent) -> None:
        """Tell the run's supervisor of an event, at once."""
        request = self._endpoint.request
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

    def stop(self) -> None:
        """Send the last records and fall silent."""
        self._stopped.set()
        self.send_records()

    def _tick(self) -> None:
        if self._stopped.is_set():
            return
        self.send_records()
        reason = self._why_unwanted()
        if reason is not None:
            self._endpoint.abort(reason)
        self._worker.loop.call_later(PERIOD, self._tick)

    def _why_unwanted(self) -> str | None:
        task = self._worker.state.tasks.get(self._key)
        if task is None or task.state not in ("executing", "long-running"):
            return "the run's client closed, or its task was cancelled"
        if self._worker.status.name not in ("running", "paused", "init", "starting"):
            return f"the Dask worker {self._worker.address} is {self._worker.status.name}"
        return None
