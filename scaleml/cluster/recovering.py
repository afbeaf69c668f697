"""A run between a loss and its next generation: what the survivors have left, the workers that are awaited, where others go on."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, final

from distributed import Client

from scaleml.clock import WALL
from scaleml.cluster import calls, config
from scaleml.cluster.calls import WorkerFacts
from scaleml.cluster.embedded import reopen
from scaleml.cluster.errors import StartFailed
from scaleml.cluster.host_facts import hosts_of
from scaleml.cluster.launcher import Generation
from scaleml.cluster.losses import losses
from scaleml.cluster.placement import Placement
from scaleml.cluster.rank_reports import RankReports
from scaleml.cluster.rank_tasks import RankTasks, Task
from scaleml.cluster.recovery import WayOn, recovered_ranks, replace_lost
from scaleml.cluster.recovery_checkpoint import from_checkpoint
from scaleml.cluster.recovery_phases import RecoveryPhases
from scaleml.cluster.staging.placed_data import PlacedData
from scaleml.cluster.stalled_workers import StalledWorkers
from scaleml.cluster.supervisor import Supervisor
from scaleml.runtime.outcome import Recovered
from scaleml.telemetry.history import History
from scaleml.telemetry.recovery import Recovery

_log = logging.getLogger(__name__)

LOOK: Final = 0.02
"""Seconds between two looks whether a worker has come; Dask's nannies need about 0.4 s to start one."""
_REOPEN: Final = 0.5
"""Seconds between two looks at the embedded cluster's own processes."""
_ATTEMPTS: Final = 5  # at one recovery point


class NotRecovered(Exception):
    """Nobody can go on."""


@dataclass(frozen=True)
class NextGeneration:
    """The ranks that go on.

    Parameters
    ----------
    generation : Generation
        Who trains now.
    way : WayOn
        From where.
    told : mapping
        What each rank is told of it.
    before : mapping
        The tasks whose outcomes each rank needs.
    """

    generation: Generation
    way: WayOn
    told: Mapping[int, Recovered]
    before: Mapping[int, list[Task]]


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
    ) -> None:
        self._client = client
        self._tasks = tasks
        self._data = data
        self._reports = reports
        self._names = names
        self._stalled = stalled
        self._how = "lost"
        self.phases = RecoveryPhases(WALL.now())
        self._tried = tasks.tried
        self._patience = config.seconds("recovery-timeout")
        self._noticed = WALL.now()
        self._lost: set[str] = set()
        self._reopened = 0.0
        self._cause = ""
        self._ranks: list[int] = []
        self._losses: list[str] = []
        self._as_they_are = False
        self._has_looked_for_rows = False
        self._is_from_disk = False
        self._step = 0
        self._clock = self._replaced_after = 0.0

    def begin(self, supervisor: Supervisor) -> None:
        """Take in how ranks have ended; once more, where those that went on did not get far."""
        self._cause, noticed = supervisor.cause, supervisor.failing_since
        _log.info("%s", self._cause)
        lost = [rank for rank, status in supervisor.ended.items() if status == "lost"]
        if not self.phases.seconds and noticed is not None:
            self.phases = RecoveryPhases(self._reports.heard(lost) or noticed)
            self.phases.end("noticed", noticed)
        self.phases.end("stopped")
        if supervisor.has_begun:
            self._tasks.note_survivors(supervisor.suspended, supervisor.points, supervisor.standings)
        for address in supervisor.lost:
            self.lose(address)
        if supervisor.stalled:
            self._how = f"stalled on {', '.join(sorted(supervisor.stalled))}"
            self._stalled.add(supervisor.stalled)
        self._step = max(self._step, supervisor.last_step)
        self._has_looked_for_rows = False

    def note(self, history: History) -> None:
        """Have the history say what was recovered, once ranks go on, and once more when they are past the step of the loss."""
        self.phases.end("started")
        seconds = WALL.now() - self._noticed
        ranks = ", ".join(map(str, self._ranks))
        who = f"rank{'s' * (len(self._ranks) > 1)} {ranks} replaced" if self._ranks else "links lost and made again"
        since = f"goes on from step {self._tried[-1]}" if self._tried[-1] >= 0 else "goes on from the beginning"
        since += " of its checkpoint" if self._is_from_disk else ""
        goes_on_from = self._tried[-1]
        if self._as_they_are:
            since, goes_on_from = "others go on as they are", self._step
        after = f"after {seconds:.2f} s ({self._replaced_after:.2f} s for workers)"
        text = "; ".join([f"{who}: {self._how} at step {self._step}, {since}, {after}", *self._losses])
        _log.info("%s", text)
        history.mark(self._clock, text, max(0, goes_on_from), "recovery")
        what = ", ".join([who, *self._losses])
        recovery = Recovery(self._clock, what, self._step, goes_on_from, dict(self.phases.seconds))
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
        placement = self._replaced(now.placement)
        if placement is None:
            return None
        self.phases.end("worker")
        way, plan = from_checkpoint(self._tasks.way_on(placement.layout), now.plan)
        if way.step < 0 and now.number and not now.plan.recovered:
            raise NotRecovered(
                f"{self._cause}; with several ranks their recovery points were lost, and other ranks had begun the run"
            )
        self._step = max(self._step, way.step)  # telemetry may not have told of as many
        self._tried.append(way.step)
        if self._tried.count(way.step) > _ATTEMPTS:
            raise NotRecovered(
                f"{self._cause}; {_ATTEMPTS} times others have gone on from step {way.step}, and were lost as well"
            )
        passed = WALL.now() - self._noticed
        self._clock = clock + passed
        reached = self._reports.reached
        steps = {rank: step for rank, (step, _) in reached.items()}
        told = recovered_ranks(way, now.placement, self._lost, self._step, self._clock, steps)
        lost = [rank for rank, each in told.items() if each.is_replacement]
        self._ranks = sorted({*self._ranks, *lost})
        self._as_they_are = not way.is_exact
        if self._as_they_are:
            said = losses(way, lost, now.plan, reached)
            self._losses += [one for one in said if one not in self._losses]
        self._replaced_after = passed
        self._is_from_disk = way.is_exact and way.step >= 0 and None in way.sources
        plan = plan.after_loss(lost, self._step)
        self._lost.clear()
        before = self._tasks.sources(way)
        self._tasks.abandon()
        return NextGeneration(Generation(now.number + 1, plan, placement, now.planned), way, told, before)

    def _replaced(self, before: Placement) -> Placement | None:
        late = WALL.now() > self._noticed + self._patience
        info = calls.identity(self._client)
        for address in self._stalled.among(info):
            del info[address]
        found = replace_lost(before, info, self._names)
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
