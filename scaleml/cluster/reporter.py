"""A rank's voice and ears, on its worker's event loop: ten times a second it sends notes and looks whether to go on."""

from __future__ import annotations

import threading
from typing import Any, Final

from scaleml.cluster.endpoint import Endpoint
from scaleml.telemetry.recorder import Recorder

TOPIC: Final = "scaleml"
PERIOD: Final = 0.1
"""Seconds between two looks."""


class Reporter:
    """Sends a rank's history and notices that its task was cancelled or its worker closed.

    Parameters
    ----------
    worker : distributed.Worker
        Where the rank runs.
    key : str
        The rank's Dask task.
    lobby : Endpoint
        What to abort when the rank is no longer wanted.
    """

    def __init__(self, worker: Any, key: str, lobby: Endpoint) -> None:
        self._worker = worker
        self._key = key
        self._lobby = lobby
        self._recorder: Recorder | None = None
        self._handle: Any = None
        self._stopped = threading.Event()
        worker.loop.add_callback(self._tick)

    def listen_to(self, recorder: Recorder) -> None:
        """Send what this recorder notes."""
        self._recorder = recorder

    def report(self, kind: str, **facts: Any) -> None:
        """Tell the run's supervisor something, at once; plain Python values only."""
        ticket = self._lobby.ticket
        message = {"run": ticket.run, "generation": ticket.generation, "rank": ticket.rank, "kind": kind, **facts}
        self._worker.log_event(TOPIC, message)

    def send_notes(self) -> None:
        """Send the history's new rows."""
        if self._recorder is not None:
            rows, evaluations = self._recorder.drain()
            epochs = self._recorder.drain_epochs()
            if rows or evaluations or epochs:
                self.report("rows", rows=rows, evaluations=evaluations, epochs=epochs)

    def stop(self) -> None:
        """Send the last notes and fall silent."""
        self._stopped.set()
        self.send_notes()

    def _tick(self) -> None:
        if self._stopped.is_set():
            return
        self.send_notes()
        reason = self._unwanted()
        if reason is not None:
            self._lobby.abort(reason)
        self._worker.loop.call_later(PERIOD, self._tick)

    def _unwanted(self) -> str | None:
        task = self._worker.state.tasks.get(self._key)
        if task is None or task.state not in ("executing", "long-running"):
            return "the run's client closed, or its task was cancelled"
        if self._worker.status.name not in ("running", "paused", "init", "starting"):
            return f"the Dask worker {self._worker.address} is {self._worker.status.name}"
        return None
