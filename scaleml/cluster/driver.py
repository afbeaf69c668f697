"""Driver of a run: a thread that carries out what the supervisor decides: places the ranks, passes on their events, ends and cleans up."""

from __future__ import annotations

import logging
import math
import queue
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from distributed import Client

from scaleml.arrays import Array
from scaleml.clock import WALL
from scaleml.cluster import config, event_router, events
from scaleml.cluster.cancellation import tell_to_end
from scaleml.cluster.ending import Ending
from scaleml.cluster.errors import RowsLost, StartFailed, passed, words_of
from scaleml.cluster.first_rank import FirstRank
from scaleml.cluster.hand_over import HandOver
from scaleml.cluster.heartbeat import examine
from scaleml.cluster.launcher import Generation, Launcher, busy_in, paused_in
from scaleml.cluster.next_generation import NextGeneration, NotRecovered
from scaleml.cluster.placement import Placement
from scaleml.cluster.rank_reports import RankReports
from scaleml.cluster.rank_tasks import RankTasks, Task
from scaleml.cluster.reconnection import Reconnection
from scaleml.cluster.recovering import LOOK, Recovering, names_of
from scaleml.cluster.results import Result
from scaleml.cluster.shrinking import WorkerRange
from scaleml.cluster.staging.placed_data import PlacedData
from scaleml.cluster.stalled_workers import StalledWorkers
from scaleml.cluster.supervisor import Supervisor
from scaleml.cluster.task_watch import TaskWatch
from scaleml.escaping import printable
from scaleml.owned_files import sweep
from scaleml.runtime.commands import Command
from scaleml.runtime.outcome import Recovered
from scaleml.runtime.plan import Plan
from scaleml.telemetry.history import History

TICK: Final = 0.1
_log = logging.getLogger(__name__)


class Driver:
    """Runs one run: a thread around a supervisor.

    Parameters
    ----------
    client : Client
        The cluster.
    plan : Plan
        The mathematics.
    placement : Placement
        The ranks' workers.
    data : PlacedData
        The shards.
    allowed : WorkerRange, optional
        With how many ranks it may go on after a loss; as many as it has, by default.

    Attributes
    ----------
    generation : Generation
        Who trains now; replaced as a whole, so that readers in other threads never see half of a change.
    """

    def __init__(
        self, client: Client, plan: Plan, placement: Placement, data: PlacedData, allowed: WorkerRange | None = None
    ) -> None:
        self.run = secrets.token_hex(16)
        self.client = client
        self.data = data
        self.allowed = allowed or WorkerRange.fixed(placement.layout.workers)
        self.generation = Generation(0, plan, placement)
        self.history = History()
        self.state: events.RunState = "starting"
        self.error: str | None = None
        self.result: Result | None = None
        self._on_change: Callable[[], object] = bool
        self._events: queue.SimpleQueue[events.Event] = queue.SimpleQueue()
        self.reports = RankReports(self.history, self._events)
        self._tasks = RankTasks(plan)
        self._reconnection = Reconnection(client, self.run, self._tasks, self.reports)
        self.hand_over = HandOver(client, data)
        self._first = FirstRank(client, self.run)
        self._ending = Ending(client, self.run)
        self._names, self._known = dict[str, str](), 0  # of workers; how many commands
        self._recovering: Recovering | None = None
        self._stalled = StalledWorkers(client)
        self._has_ranks = True
        self._supervisor = Supervisor(placement.addresses, math.inf, workers=placement.layout.workers)
        self._supervisor.recovers, self._supervisor.timeout = plan.replaces_lost, config.seconds("comm.timeout")
        self._thread = threading.Thread(target=self._drive, name=f"scaleml-run-{self.name}", daemon=True)

    @property
    def name(self) -> str:
        """The run's id as logs and threads show it."""
        return self.run[:8]

    @property
    def plan(self) -> Plan:
        """The mathematics that the ranks were started with."""
        return self.generation.plan

    @property
    def placement(self) -> Placement:
        """Where the ranks are."""
        return self.generation.placement

    @property
    def topology(self) -> str | None:
        """What the ranks' strategy has settled on, where it had a choice."""
        return self.reports.topology

    def start(self, on_change: Callable[[], None]) -> None:
        """Begin, and return at once; ``on_change`` is called after each change of the run's state, in the driver's thread."""
        self._on_change = on_change
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether its thread lives: in a child that was forked off it does not, whatever the run's state was then."""
        return self._thread in threading.enumerate()  # a Ctrl-C in is_alive() marks it as ended (Python 3.11)

    def join(self) -> None:
        """Wait for the thread's end."""
        self._thread.join()

    def send(self, command: Command) -> bool:
        """Bring a command to rank 0, also to the one that takes its place; False if nobody is there any more."""
        _log.debug("run %s: command %d: %s %s", self.name, command.number, command.verb, command.settings)
        return self._first.tell(self.generation, command)

    def newest_params(self) -> Array | None:
        """Return the parameters that rank 0 kept last, if the run keeps them and it is still there."""
        return self._first.newest_params(self.generation)

    def cancel_start(self) -> None:
        """End a run that is still starting."""
        self._events.put(events.StartCancelled())

    def has_applied(self, number: int) -> bool:
        """Whether command ``number`` has taken effect on all ranks."""
        return self._supervisor.has_applied(number)

    def applied_at(self, number: int) -> dict[int, int]:
        """Return, by rank, the step after which command ``number`` took effect."""
        return dict(self._supervisor.applied.get(number, {}))

    def _drive(self) -> None:
        try:
            sweep()
            self._place_ranks(self._tasks.handed(self.plan), {})
            self._follow()
        except Exception as error:  # noqa: BLE001  whatever happens, the run must end and say why
            words = str(error) if isinstance(error, StartFailed) else words_of(error)
            self._conclude(events.Conclude("failed", words))
        finally:
            event_router.unsubscribe(self.run, self.reports)
            self._ending.clean_up(self._tasks.take_all(), self._living, failed=self._supervisor.state == "failed")
            self.state = self._supervisor.state
            _log.info("run %s: %s%s", self.name, self.state, f": {self.error}" if self.error else "")
            self._on_change()

    def _place_ranks(self, before: Mapping[int, Sequence[Task]], recovered: Mapping[int, Recovered]) -> None:
        now = self.generation
        event_router.subscribe(self.client, self.run, now.placement.workers, self.reports)
        launcher = Launcher(self.client, self.run, now, self.data)
        launcher.bring()  # first, for it may take long, and open endpoints do not wait for ever
        if self._recovering is not None:
            self._recovering.phases.end("data")
        endpoints = launcher.open_endpoints()
        self._supervisor.busy, self._supervisor.paused = busy_in(endpoints), paused_in(endpoints)
        self._supervisor.start_by = WALL.now() + launcher.patience
        self._watch = TaskWatch(self.client, self._tasks.current)
        launcher.submit(endpoints, self._tasks.current, before, recovered)
        self._names = names_of(self.client)

    def _follow(self) -> None:
        while not self._supervisor.over:
            try:
                event: events.Event = self._events.get(timeout=TICK if self._has_ranks else LOOK)
            except queue.Empty:
                event = events.Tick(self.reports.beats.take())
            told = self._reconnection.look(self._supervisor, self.generation)
            if told is not None and not isinstance(event, events.StartCancelled):
                if not told:  # what ranks tell meanwhile of their end speaks of a client that is gone
                    self._show("recovering")
                for each in told:
                    self._handle(each)
            elif self._has_ranks:
                self._handle(event)
            else:
                self._go_on_recovering(event)
            if told is None and isinstance(event, events.Tick) and self._has_ranks:
                for seen in self._watch.look(self._supervisor.ended, WALL.now()):
                    self._handle(seen)

    def _handle(self, event: events.Event) -> None:
        before = self._supervisor.state
        if isinstance(event, events.WorkerLost):
            _log.info("run %s: lost worker %s at step %d", self.name, event.address, event.step)
            self._tasks.check_handed(event.address)
        elif not isinstance(event, events.Tick):
            _log.debug("run %s: %r", self.name, event)
        for instruction in self._supervisor.handle(event, WALL.now()):
            self._perform(instruction)
        if not self._supervisor.over:
            if self._supervisor.state in ("running", "paused") and before in ("starting", "recovering"):
                self._on_running()  # first: who sees that it runs may tell it something
            self._show(self._supervisor.state)
        if isinstance(event, events.Applied):
            self._on_change()

    def _show(self, state: events.RunState) -> None:
        if self.state != state:
            self.state = state
            _log.info("run %s: %s", self.name, state)
            self._on_change()

    def _perform(self, instruction: events.Instruction) -> None:
        if isinstance(instruction, events.Abort):
            tell_to_end(self.client, self.run, self._living, instruction.reason)
        elif isinstance(instruction, events.StartNextGeneration):
            self._tasks.hand_over(self.plan, self.placement.addresses)
            self._have_others_go_on()
        elif isinstance(instruction, events.Recover):
            self._recover()
        elif isinstance(instruction, events.Examine):
            suspects = {rank: self.placement.addresses[rank] for rank in instruction.ranks}
            for seen in examine(self.client, suspects, self.reports.step):
                self._events.put(seen)
        else:
            self._conclude(instruction)

    def _have_others_go_on(self) -> None:
        """Have others start from what ranks have handed over."""
        while True:
            lost = self._supervisor.lost | self._supervisor.stalled
            following = self.hand_over.next_after(self.generation, self._stalled)
            self._supervisor = self._supervisor.next_generation(following.placement.addresses, len(following.training))
            self._supervisor.recovers, self._supervisor.handed = following.plan.replaces_lost, True
            # Before the generation: who sees the new one must not see the old one's state.
            self.state = self._supervisor.state
            self.generation = following
            self.reports.follow(following.number)
            self._tasks.abandon()
            try:
                self._place_ranks(self._tasks.handed(self.plan, following.change, lost), {})
                return
            except (StartFailed, OSError) as error:
                _log.info("run %s: one was lost while others were to go on: %s", self.name, passed(error))

    def _on_running(self) -> None:
        """All ranks have entered: those that go on after a loss are told what they have not heard, or have forgotten with it."""
        self._tasks.settle()
        if self._recovering is not None:
            self._recovering.note(self.history)
        self._first.listens(self.generation, None if self._recovering is None else self._known)
        self._recovering = None

    def _recover(self) -> None:
        """Begin to have others go on, with what is left after a loss."""
        if self._supervisor.handed and not self._supervisor.has_begun:
            self._stalled.add(self._supervisor.stalled)
            self._have_others_go_on()
            return
        self.state, self._has_ranks = "recovering", False
        shared = self.client, self._tasks, self.data, self.reports, self._names, self._stalled, self.allowed
        self._recovering = self._recovering or Recovering(*shared)
        self._recovering.begin(self._supervisor, self.generation)
        self._on_change()

    def _go_on_recovering(self, event: events.Event) -> None:
        """Start the next generation as soon as there are workers for it."""
        assert self._recovering is not None
        if isinstance(event, events.StartCancelled):
            self._conclude(events.Conclude("stopped"))
        elif isinstance(event, events.WorkerLost):
            self._supervisor.lost.add(event.address)
            self._recovering.lose(event.address)
        else:
            try:
                found = self._recovering.look(self.generation, self.history.clock(self.placement.layout.workers))
                if found is not None:
                    self._start_recovered(found)
            except (RowsLost, NotRecovered) as error:
                self._conclude(events.Conclude("failed", self._recovering.words(error)))
            except (StartFailed, OSError) as error:
                _log.info("run %s: one more was lost: %s", self.name, passed(error))
                self._has_ranks = False
                self._recovering.exclude_stopped(self.placement.workers)

    def _start_recovered(self, found: NextGeneration) -> None:
        self.reports.rewind(found.generation.number, found.way.step if found.way.is_exact else None)
        missed = self._first.told_since(found.way.commands)
        self._known = found.way.commands + len(missed)
        self.generation, self._has_ranks = (now := found.generation), True
        self._supervisor = self._supervisor.recovered(now.placement.addresses, len(now.training))
        self._place_ranks(found.before, {**found.told, 0: replace(found.told[0], commands=missed)})

    @property
    def _living(self) -> list[str]:
        return [address for address in self.placement.workers if address not in self._supervisor.lost]

    def _conclude(self, conclusion: events.Conclude) -> None:
        self.error = None if conclusion.error is None else printable(conclusion.error)
        self._supervisor.state = conclusion.state
        if conclusion.state == "failed":
            ranks, words = len(self._tasks.current), self.error or "the run failed"
            self._ending.await_all(self._supervisor, ranks, self._living, words, self._events)
        self.result = self._tasks.result(self.client, self._supervisor.ended, self.plan)
        lost = self.result is None and conclusion.state == "finished" and self.client.status == "running"
        if lost and self.plan.replaces_lost:  # with who was lost between its end and this: others train again
            self._supervisor.train_again()
            self._recover()
