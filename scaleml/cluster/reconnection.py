"""Reconnection: a client that has lost its connection, and is back, takes its run's ranks again by name, under new tasks."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final, final

from distributed import Client

from scaleml.clock import WALL
from scaleml.cluster import calls, config, event_router
from scaleml.cluster.client_link import ClientLink
from scaleml.cluster.errors import StartFailed
from scaleml.cluster.events import ClientBack, ClientLost, Event, Left, WorkerLost
from scaleml.cluster.heartbeat import why_client_lost
from scaleml.cluster.launcher import Generation
from scaleml.cluster.parked_ranks import End, pick_up, ranks_here
from scaleml.cluster.rank_reports import RankReports
from scaleml.cluster.rank_tasks import RankTasks, Task
from scaleml.cluster.submission import submit
from scaleml.cluster.supervisor import Supervisor

_LOOK: Final = 0.05
_OVER: Final = ("finished", "stopped", "switched")
_log = logging.getLogger(__name__)


@final
class Reconnection:
    """Looks at the client's connection for one run.

    Parameters
    ----------
    client : Client
        The cluster.
    run : str
        The run's id.
    tasks : RankTasks
        Its ranks'.
    reports : RankReports
        What these tell.
    """

    def __init__(self, client: Client, run: str, tasks: RankTasks, reports: RankReports) -> None:
        self._client = client
        self._run = run
        self._tasks = tasks
        self._reports = reports
        self._link = ClientLink(client)

    def look(self, supervisor: Supervisor, now: Generation) -> list[Event] | None:
        """Return what follows from how the connection stands now: nothing while it is awaited, None where it stands.

        Parameters
        ----------
        supervisor : Supervisor
            What is known of the ranks.
        now : Generation
            Who trains, or did.
        """
        may_wait = now.plan.replaces_lost and supervisor.state in ("running", "paused", "recovering")
        state = self._link.look()
        if state == "gone" or (state == "down" and not may_wait):
            return [ClientLost(why_client_lost(self._client))]
        if state == "down":
            return []
        if state != "back" or not may_wait:  # who does not wait hears of it from Dask: its tasks were cancelled
            return None
        self._link.renewed()
        _log.info("run %s: the client is back", self._run[:8])
        return self._adopt(supervisor, now)

    def _adopt(self, supervisor: Supervisor, now: Generation) -> list[Event]:
        """Take again what the ranks have left, and return what they would have told."""
        event_router.subscribe(self._client, self._run, now.placement.workers, self._reports)
        event_router.replay(self._client)
        addresses = now.placement.addresses
        parked = self._await_parked(now)
        self._reports.forget_ranks()  # what they have told of their end speaks of a client that is gone
        self._tasks.adopt(
            now.number, [addresses[rank] if rank in parked else None for rank in range(len(addresses))], self._again
        )
        if supervisor.is_over_to_others:
            return []
        told: list[Event] = []
        there = calls.identity(self._client)
        for rank, address in enumerate(addresses):
            if rank in supervisor.ended:
                continue
            if address not in there:
                told.append(WorkerLost(address, supervisor.last_step))
            else:
                end = parked.get(rank, End("failed", supervisor.last_step, (), {}))
                told.append(Left(rank, end.status, end.step, end.points, end.standing))
        if all(isinstance(event, Left) and event.status in _OVER for event in told):
            return told
        return [
            ClientBack("the Dask client had lost its connection to the scheduler, which then forgot the run's tasks"),
            *told,
        ]

    def _await_parked(self, now: Generation) -> Mapping[int, End]:
        """Wait until no rank is at work any more, and return how each has ended that is parked.

        Raises
        ------
        StartFailed
            Where one does not come to its end.
        """
        deadline = WALL.now() + config.seconds("client-timeout")
        while True:
            there = calls.identity(self._client)
            workers = [address for address in now.placement.workers if address in there]
            answers = calls.on_workers(
                self._client, calls.CALL_TIMEOUT, ranks_here, self._run, workers=workers, on_error="ignore"
            )
            here = [answer for answer in answers.values() if not isinstance(answer, BaseException)]
            living = sorted(rank for one in here for number, rank in one.living if number == now.number)
            if not living:
                return {rank: end for one in here for (number, rank), end in one.parked.items() if number == now.number}
            if WALL.now() > deadline:
                raise StartFailed(
                    f"the Dask client lost its connection and is back, but rank {living[0]} on worker "
                    f"{now.placement.addresses[living[0]]} has not come to the end of its step; start the run again"
                )
            WALL.sleep(_LOOK)

    def _again(self, number: int, rank: int, address: str) -> Task:
        """Return a task of this connection for what a rank has left."""
        return submit(
            self._client, pick_up, (self._run, number, rank), workers=[address], allow_other_workers=False, retries=0
        )
