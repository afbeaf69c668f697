"""The end of a run on the cluster: ranks that were told to end get a moment for it, then nothing of them is left."""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Sequence
from typing import Final, final

from distributed import Client

from scaleml.clock import WALL
from scaleml.cluster import events
from scaleml.cluster.cancellation import cancel_ranks, tell_to_end
from scaleml.cluster.rank_tasks import Task
from scaleml.cluster.supervisor import Supervisor
from scaleml.owned_files import sweep

ENDING: Final = 2.0
"""Seconds for ranks that were told to end."""


@final
class Ending:
    """Ends a run's ranks.

    Parameters
    ----------
    client : Client
        The cluster.
    run : str
        The run's id.
    """

    def __init__(self, client: Client, run: str) -> None:
        self._client = client
        self._run = run

    def await_all(
        self,
        supervisor: Supervisor,
        ranks: int,
        living: Sequence[str],
        reason: str,
        heard: queue.SimpleQueue[events.Event],
    ) -> None:
        """Tell so many ranks to end and give them a moment, so that nothing of them is left when the run is over."""
        tell_to_end(self._client, self._run, living, reason)
        deadline = WALL.now() + ENDING / 2
        ended = supervisor.ended
        while len(ended) < ranks and WALL.now() < deadline and self._client.status == "running":
            with contextlib.suppress(queue.Empty):
                event = heard.get(timeout=0.02)
                if isinstance(event, events.Left | events.WorkerLost):
                    supervisor.note_end(event)

    def clean_up(self, futures: Sequence[Task], living: Sequence[str], *, failed: bool) -> None:
        """Let go of the ranks' tasks, and of files whose owners are gone."""
        if self._client.status == "running":
            if failed:
                cancel_ranks(self._client, self._run, living, futures, ENDING / 2)
            for future in futures:
                future.release()
        sweep()
