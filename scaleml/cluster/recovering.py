"""A run between a loss and its next generation: what the survivors have left, the workers that are awaited, where others go on."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final, final

from distributed import Client

from scaleml.clock import WALL
from scaleml.cluster import calls, config
from scaleml.cluster.calls import WorkerFacts
from scaleml.cluster.embedded import reopen
from scaleml.cluster.errors import StartFailed
from scaleml.cluster.host_facts import hosts_of
from scaleml.cluster.launcher import Generation
from scaleml.cluster.losses import Reached
from scaleml.cluster.next_generation import NextGeneration, NotRecovered
from scaleml.cluster.placement import Placement
from scaleml.cluster.rank_reports import RankReports
from scaleml.cluster.rank_tasks import RankTasks
from scaleml.cluster.recovery import WayOn, recovered_ranks, replace_lost
from scaleml.cluster.recovery_account import RecoveryAccount
from scaleml.cluster.recovery_checkpoint import from_checkpoint
from scaleml.cluster.recovery_phases import RecoveryPhases
from scaleml.cluster.shrinking import (
    WorkerRange,
    as_they_are_of_those,
    placed_anew,
    plan_of_those,
    reached_by_those,
    those_who_stay,
    told_to,
    way_of_those,
)
from scaleml.cluster.staging.placed_data import PlacedData
from scaleml.cluster.stalled_workers import StalledWorkers
from scaleml.cluster.supervisor import Supervisor
from scaleml.telemetry.history import History
from scaleml.telemetry.recovery import Recovery

_log = logging.getLogger(__name__)

LOOK: Final = 0.01
"""Seconds between two looks whether a worker has come; Dask's nannies need about 0.4 s to start one."""
_REOPEN: Final = 0.5
"""Seconds between two looks at the embedded cluster's own processes."""
_LEFT: Final = 1.0  # seconds in which another worker may come for one that has left on its own
_ATTEMPTS: Final = 5  # at one recovery point


@final
class Recovering:
    """Looks for workers in place of lost ones, and says how ranks on them go on.

    Parameters
    ----------
    client : Client
        The cluster.
    tasks : RankTasks
        The run's.
    data : PlacedData
        The shards.
    reports : RankReports
        What the ranks tell.
    names : mapping
        What the scheduler called the workers.
    stalled : StalledWorkers
        Those that are not to be used.
    allowed : WorkerRange
        With how many ranks the run may go on.

    Attributes
    ----------
    phases : RecoveryPhases
        How long each part has taken.
    """

    def __init__(
        self,
        client: Client,
        tasks: RankTasks,
        data: PlacedData,
        reports: RankReports,
        names: Mapping[str, str],
        stalled: StalledWorkers,
        allowed: WorkerRange,
    ) -> None:
        self._client = client
        self._tasks = tasks
        self._data = data
        self._reports = reports
        self._names = names
        self._stalled = stalled
        self._account = RecoveryAccount()
        self._allowed = allowed
        self._left: Generation | None = None  # whose points are there
        self._reached: Reached = {}  # by its ranks
        self._gone: set[str] = set()  # since then
        self.phases = RecoveryPhases(WALL.now())
        self._tried = tasks.tried
        self._patience = config.seconds("recovery-timeout")
        self._noticed = WALL.now()
        self._lost: set[str] = set()
        self._reopened = 0.0
        self._cause = ""
        self._has_looked_for_rows = False
        self._step = 0
        self._clock = self._stopped_at = self._replaced_after = 0.0

    def begin(self, supervisor: Supervisor, generation: Generation) -> None:
        """Take in how the ranks of a generation have ended; once more, where those that went on did not get far."""
        self._cause, noticed = supervisor.cause, supervisor.failure.since
        _log.info("%s", self._cause)
        lost = [rank for rank, status in supervisor.ended.items() if status == "lost"]
        if not self.phases.seconds and noticed is not None:
            self.phases = RecoveryPhases(self._reports.heard(lost) or noticed)
            self.phases.end("noticed", noticed)
        self.phases.end("stopped")
        if supervisor.has_begun or self._left is None:
            self._left, self._gone, self._reached = generation, set(), dict(self._reports.reached)
        if supervisor.has_begun:
            self._tasks.note_survivors(
                supervisor.suspended, supervisor.points, generation.plan, supervisor.standings, generation.number
            )
        for address in supervisor.lost:
            self.lose(address)
        if supervisor.failure.client_back:
            self._account.how, self._account.links = "lost and made again", "the client's connection"
        if supervisor.stalled:
            self._account.how = f"stalled on {', '.join(sorted(supervisor.stalled))}"
            self._stalled.add(supervisor.stalled)
        self._step = max(self._step, supervisor.last_step)
        self._has_looked_for_rows = False

    def note(self, history: History) -> None:
        """Have the history say what was recovered, once ranks go on, and once more when they are past the step of the loss."""
        self.phases.end("started")
        seconds = WALL.now() - self._noticed
        account = self._account
        goes_on_from = self._step if account.as_they_are else self._tried[-1]
        after = f"after {seconds:.2f} s ({self._replaced_after:.2f} s for workers)"
        text = account.text(self._step, goes_on_from, after)
        _log.info("%s", text)
        history.mark(self._clock, text, max(0, goes_on_from), "recovery")
        recovery = Recovery(self._clock, account.what, self._step, goes_on_from, dict(self.phases.seconds))
        history.note_recovery(recovery)

        def is_past() -> None:
            self.phases.end("replayed")
            history.note_recovery(replace(recovery, phases=dict(self.phases.seconds)))

        self._reports.when_past(self._step, is_past)

    def words(self, error: Exception) -> str:
        """Return why nobody goes on: what was lost first, then what has come of it."""
        return str(error) if self._cause in str(error) else f"{self._cause}; {error}"

    def lose(self, address: str) -> None:
        """Note that a worker is gone, too."""
        self._lost.add(address)
        self._gone.add(address)
        self._tasks.lose(address)

    def look(self, now: Generation, clock: float) -> NextGeneration | None:
        """Return how ranks go on, as soon as there are workers for all.

        Parameters
        ----------
        now : Generation
            Who trained.
        clock : float
            What the training clock showed at the end.

        Raises
        ------
        NotRecovered
            When no worker has come in time, or nothing is left to go on from.
        """
        info = calls.identity(self._client)
        for address in self._stalled.among(info):
            del info[address]
        self._stopped_at = clock
        stay = self._stay(info)
        if stay is None or len(stay[0]) == self._before.placement.layout.workers:
            found = self._with_all(now, info)
        else:
            found = self._with_fewer(*stay, now, info)
        if found is None:
            return None
        way = found.way
        self._account.is_from_disk = way.is_exact and way.step >= 0 and None in way.sources
        self._lost.clear()
        self._tasks.abandon()
        return found

    def _with_all(self, now: Generation, info: Mapping[str, WorkerFacts]) -> NextGeneration | None:
        """Return how as many ranks as before go on, others in place of lost ones."""
        placement = self._found(replace_lost(now.placement, info, self._names), info)
        if placement is None:
            return None
        way, plan = from_checkpoint(self._tasks.way_on(placement.layout), now.plan)
        self._check(way, now)
        told = recovered_ranks(way, now.placement, self._lost, self._step, self._clock, self._steps)
        lost = [rank for rank, each in told.items() if each.is_replacement]
        self._account.replaced = sorted({*self._account.replaced, *lost})
        self._account.add(way, lost, now.plan, self._reached)
        plan = plan.after_loss(lost, self._step)
        generation = Generation(now.number + 1, plan, placement, now.planned)
        return NextGeneration(generation, way, told, self._tasks.sources(way))

    def _with_fewer(
        self, stay: Sequence[int], addresses: Sequence[str], now: Generation, info: Mapping[str, WorkerFacts]
    ) -> NextGeneration | None:
        """Return how those go on that stay, on these workers."""
        before, layout = self._before, self._before.placement.layout
        lost = [rank for rank, at in enumerate(before.training) if at not in addresses or rank not in stay]
        servers = [rank for rank in range(layout.workers, layout.size) if layout.beside(rank) in lost]
        plan = plan_of_those(before.plan, stay, [*lost, *servers], self._step)
        placement = self._found(placed_anew(before.placement, plan.layout, addresses), info)
        if placement is None:
            return None
        all_ways = self._tasks.way_on(layout)
        if all_ways.is_exact:
            way, change = way_of_those(self._tasks.points, stay, layout)
        else:
            way, change = as_they_are_of_those(all_ways, stay, layout)
        way, plan = from_checkpoint(way, plan, any_ranks=True)
        self._check(way, now)
        told = told_to(way, change, stay, layout, self._step, self._clock, [*lost, *servers], self._steps)
        self._account.replaced = [*(rank for rank in lost if rank in stay), *servers]
        self._account.left_out = [rank for rank in lost if rank not in stay]
        self._account.add(all_ways, [*lost, *servers], before.plan, self._reached)
        self._reports.reached = reached_by_those(way, stay, layout, self._reached)
        begins = all(source is None for source in way.sources)  # from the seed, or a checkpoint: nobody brings anything
        generation = Generation(now.number + 1, plan, placement, now.planned, None if begins else change)
        return NextGeneration(generation, way, told, self._tasks.sources(way))

    @property
    def _steps(self) -> dict[int, int]:
        """How far each former rank had come, as far as it has told."""
        return {rank: step for rank, (step, _) in self._reached.items()}

    @property
    def _before(self) -> Generation:
        assert self._left is not None, "begin() comes first"
        return self._left

    def _stay(self, info: Mapping[str, WorkerFacts]) -> tuple[list[int], list[str]] | None:
        """Return which ranks go on, and where, if it may be with fewer; None if all are to be replaced."""
        least, before = self._allowed.least, self._before
        if not self._allowed.shrinks:
            lost = self._gone & {*before.training}
            if not lost <= self._reports.left or WALL.now() < self._noticed + _LEFT:
                return None
            least = self._allowed.least_after_leaving  # nobody starts anew what has left on its own
        return those_who_stay(before.placement, self._gone, info, least)

    def _check(self, way: WayOn, now: Generation) -> None:
        """Note that there are workers; raise NotRecovered where nothing is left to go on from, or others have tried often enough."""
        self.phases.end("worker")
        if way.step < 0 and now.planned:
            raise NotRecovered(
                f"{self._cause}; with several ranks their recovery points were lost, and other ranks had begun the run"
            )
        if way.is_exact:
            self._step = max(self._step, way.step)  # telemetry may not have told of as many
        self._tried.append(way.step)
        if self._tried.count(way.step) > _ATTEMPTS:
            raise NotRecovered(
                f"{self._cause}; {_ATTEMPTS} times others have gone on from step {way.step}, and were lost as well"
            )
        self._replaced_after = WALL.now() - self._noticed
        self._clock = self._stopped_at + self._replaced_after

    def _found(self, found: Placement | None, info: Mapping[str, WorkerFacts]) -> Placement | None:
        """Return where ranks go on, if there are workers that can be used."""
        late = WALL.now() > self._noticed + self._patience
        if found is None:
            if WALL.now() > self._reopened + _REOPEN:  # a nanny may have gone with its worker
                self._reopened = WALL.now()
                reopen(self._client, {str(facts.get("name")) for facts in info.values()})
            if late:
                raise NotRecovered(
                    f"{self._cause}; no other worker has come within {self._patience:g} s (dask.config "
                    "'scaleml.recovery-timeout'): have a nanny or a job restart it, keep a spare worker, or pass on_worker_lost='raise'"
                )
            self._recompute_rows(info)
            return None
        try:
            hosts_of(self._client, found.workers, info)
        except StartFailed as error:  # it may just have gone again
            if late:
                raise NotRecovered(
                    f"{self._cause}; the worker that came in its place cannot be used: {error}"
                ) from error
            self.exclude_stopped(found.workers)
            return None
        return found

    def _recompute_rows(self, info: Mapping[str, WorkerFacts]) -> None:
        """Have the survivors of one host make again what was lost, while others are awaited, who will read it where it lies."""
        if not self._has_looked_for_rows and len({facts["host"] for facts in info.values()}) == 1:
            self._data.refresh(self._client)
        self._has_looked_for_rows = True

    def exclude_stopped(self, addresses: Sequence[str]) -> None:
        """Use those workers no more whose processes are stopped: somebody has not answered."""
        with contextlib.suppress(Exception):  # if nobody can say it, they are tried again
            for address in self._stalled.add_stopped(addresses, calls.identity(self._client)):
                self.lose(address)


def names_of(client: Client) -> dict[str, str]:
    """Return how the scheduler calls each worker, by address."""
    return {address: str(facts.get("name")) for address, facts in calls.identity(client).items()}
