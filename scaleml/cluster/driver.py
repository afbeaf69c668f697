"""Driver of a run: a thread that carries out what the supervisor decides: places the ranks, passes on their events, ends and cleans up."""

from __future__ import annotations

import contextlib
import logging
import queue
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar

from distributed import Client

from scaleml.arrays import Array
from scaleml.clock import WALL
from scaleml.cluster import calls, config, event_router
from scaleml.cluster.cancellation import cancel_ranks
from scaleml.cluster.endpoint import abort_ranks, deliver_command, newest_params
from scaleml.cluster.errors import StartFailed, words_of
from scaleml.cluster.events import (
    Abort,
    Applied,
    CheckHeartbeat,
    ClientLost,
    Conclude,
    Entered,
    Event,
    Instruction,
    Left,
    Marked,
    Printed,
    RankEvent,
    Recorded,
    Recover,
    RunState,
    Stalled,
    StartCancelled,
    StartNextGeneration,
    Tick,
    WorkerLost,
)
from scaleml.cluster.heartbeat import silent_rank, why_client_lost
from scaleml.cluster.launcher import Generation, Launcher
from scaleml.cluster.placement import Placement
from scaleml.cluster.rank_tasks import RankTasks, Task
from scaleml.cluster.recovery import recovered_ranks
from scaleml.cluster.replacement import LOOK, NotReplaced, Replacement, names_of
from scaleml.cluster.results import Result
from scaleml.cluster.staging.placed_data import PlacedData
from scaleml.cluster.supervisor import Supervisor
from scaleml.cluster.task_watch import TaskWatch
from scaleml.escaping import printable
from scaleml.owned_files import sweep
from scaleml.runtime.commands import Command
from scaleml.runtime.outcome import Recovered
from scaleml.runtime.plan import Plan
from scaleml.telemetry.columns import last_step
from scaleml.telemetry.history import History

TICK: Final = 0.1
ENDING: Final = 2.0  # seconds for ranks that were told to end
_SLOW_DISK: Final = 100e6  # bytes a second that any disk can read

Answer = TypeVar("Answer")

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

    Attributes
    ----------
    generation : Generation
        Who trains now; replaced as a whole, so that readers in other threads never see half of a change.
    """

    def __init__(self, client: Client, plan: Plan, placement: Placement, data: PlacedData) -> None:
        self.run = secrets.token_hex(16)
        self.client = client
        self.data = data
        self.generation = Generation(0, plan, placement)
        self.history = History()
        self.state: RunState = "starting"
        self.error: str | None = None
        self.result: Result | None = None
        self.topology: str | None = None
        self._on_change: Callable[[], None] | None = None
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._tasks = RankTasks(plan)
        self._next: Generation | None = None
        self._last_step = 0
        self._told: list[Command] = []
        self._heard_from = 0  # the first generation whose rows count: not those after a point that others go on from
        self._names: dict[str, str] = {}
        self._known = 0  # how many of the commands the ranks know that go on
        self._replacement: Replacement | None = None
        self._supervisor = Supervisor(
            placement.addresses, float("inf"), workers=placement.layout.workers, recovers=plan.keeps_points
        )
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
        """Bring a command to rank 0, also to the one that takes its place; False if that is not there any more."""
        _log.debug("run %s: command %d: %s %s", self.name, command.number, command.verb, command.settings)
        self._told.append(command)
        if not self.plan.keeps_points:
            return self._ask_rank_0(deliver_command, command)
        with contextlib.suppress(Exception):
            self._ask_rank_0(deliver_command, command)
        return True

    def newest_params(self) -> Array | None:
        """Return the parameters that rank 0 kept last, if the run keeps them and it is still there."""
        return self._ask_rank_0(newest_params)

    def _ask_rank_0(self, function: Callable[..., Answer], *args: object) -> Answer:
        now = self.generation
        address = now.placement.addresses[0]
        key = self.run, now.number, 0
        return calls.on_workers(self.client, calls.CALL_TIMEOUT, function, key, *args, workers=[address])[address]

    def cancel_start(self) -> None:
        """End a run that is still starting."""
        self._events.put(StartCancelled())

    def continue_with(self, plan: Plan, placement: Placement) -> None:
        """Have other ranks go on, once all ranks have been told to hand over."""
        self._next = Generation(self.generation.number + 1, plan, placement)

    def has_applied(self, number: int) -> bool:
        """Whether command ``number`` has taken effect on all ranks."""
        return self._supervisor.has_applied(number)

    def applied_at(self, number: int) -> dict[int, int]:
        """Return, by rank, the step after which command ``number`` took effect."""
        return dict(self._supervisor.applied.get(number, {}))

    # What the event loop's thread calls: it only queues.

    def on_rank_event(self, event: RankEvent, generation: int) -> None:
        """A rank reports."""
        if isinstance(event, Recorded):
            if generation >= self._heard_from:
                self.history.take(event.rows, event.evaluations, event.epochs)
                self._last_step = max(self._last_step, last_step(event.rows))
        elif isinstance(event, Marked):
            self.history.mark(event.time, event.text, event.step, event.what, event.rank, event.fault)
        elif not isinstance(event, Printed) and generation == self.generation.number:
            if isinstance(event, Entered):
                self.topology = event.topology or self.topology
            self._events.put(event)

    def on_worker_lost(self, address: str) -> None:
        """Dask removed a worker."""
        self._events.put(WorkerLost(address, self._last_step))

    # The thread.

    def _drive(self) -> None:
        workers = self.placement.workers
        try:
            sweep()
            event_router.subscribe(self.client, self.run, workers, self)
            self._place_ranks(self._tasks.handed(self.plan), {})
            self._follow()
        except Exception as error:  # noqa: BLE001  whatever happens, the run must end and say why
            words = str(error) if isinstance(error, StartFailed) else words_of(error)
            self._conclude(Conclude("failed", words))
        finally:
            event_router.unsubscribe(self.run, {*workers, *self.placement.workers}, self)
            self._clean_up()
            self.state = self._supervisor.state
            _log.info("run %s: %s%s", self.name, self.state, f": {self.error}" if self.error else "")
            self._changed()

    def _place_ranks(self, before: Mapping[int, Sequence[Task]], recovered: Mapping[int, Recovered]) -> None:
        # Ranks read their data before they enter: a slow disk is no fault.
        patience = config.seconds("start-timeout") + self.data.nbytes / _SLOW_DISK
        now = self.generation
        launcher = Launcher(self.client, self.run, now, patience)
        launcher.bring(self.data)  # first, for it may take long, and open endpoints do not wait for ever
        endpoints = launcher.open_endpoints()
        self._supervisor.busy = {address: opened["busy"] for address, opened in endpoints.items()}
        self._supervisor.paused = {address for address, opened in endpoints.items() if opened["is_paused"]}
        self._supervisor.start_by = WALL.now() + launcher.patience
        self._watch = TaskWatch(self.client, self._tasks.current)
        launcher.submit(endpoints, self._tasks.current, before, recovered)
        self._names = names_of(self.client)
        ranks = ", ".join(f"{rank} on {address}" for rank, address in enumerate(now.placement.addresses))
        _log.info("run %s: placed the ranks of %r: %s", self.name, now.plan.strategy, ranks)

    def _follow(self) -> None:
        while not self._supervisor.over:
            try:
                event: Event = self._events.get(timeout=TICK if self._replacement is None else LOOK)
            except queue.Empty:
                event = Tick()
            if self._replacement is None:
                self._handle(event)
            else:
                self._go_on_recovering(event)
            if self.client.status != "running":
                self._handle(ClientLost(why_client_lost(self.client)))
            elif isinstance(event, Tick):
                for seen in self._watch.look(self._supervisor.ended, WALL.now()):
                    self._handle(seen)

    def _handle(self, event: Event) -> None:
        before = self.state
        if isinstance(event, WorkerLost):
            _log.info("run %s: lost worker %s at step %d", self.name, event.address, event.step)
        elif not isinstance(event, Tick):
            _log.debug("run %s: %r", self.name, event)
        for instruction in self._supervisor.handle(event, WALL.now()):
            self._perform(instruction)
        if not self._supervisor.over:
            self.state = self._supervisor.state
            if self.state == "running" and before != "running":
                self._on_running()
            if self.state != before:
                _log.info("run %s: %s", self.name, self.state)
        if self.state != before or isinstance(event, Applied):
            self._changed()

    def _changed(self) -> None:
        assert self._on_change is not None
        self._on_change()

    def _perform(self, instruction: Instruction) -> None:
        if isinstance(instruction, Abort):
            self._abort(instruction.reason)
        elif isinstance(instruction, StartNextGeneration):
            self._start_next_generation()
        elif isinstance(instruction, Recover):
            self._recover()
        elif isinstance(instruction, CheckHeartbeat):
            self._check_heartbeat(instruction.stall)
        else:
            self._conclude(instruction)

    def _start_next_generation(self) -> None:
        assert self._next is not None
        self._tasks.hand_over(self.plan)
        self._supervisor = self._supervisor.next_generation(self._next.placement.addresses)
        # Before the generation: who sees the new one must not see the old one's state.
        self.state = self._supervisor.state
        self.generation, self._next = self._next, None
        self._place_ranks(self._tasks.handed(self.plan), {})

    def _on_running(self) -> None:
        """All ranks have entered: tell them what their run was told and they have not heard, or have forgotten with a loss."""
        self._tasks.settle()
        for command in self._told[self._known :] if self.plan.recovered else ():
            self._ask_rank_0(deliver_command, command)

    def _recover(self) -> None:
        """Begin to have others go on with what is left after a loss."""
        supervisor = self._supervisor
        self.state = "recovering"
        if supervisor.has_begun:
            self._tasks.note_survivors(supervisor.suspended, supervisor.points)
        for address in supervisor.lost:
            self._tasks.lose(address)
        noticed = WALL.now() if supervisor.failing_since is None else supervisor.failing_since
        if self._replacement is not None:
            noticed = self._replacement.noticed
        self._replacement = Replacement(self.client, self.placement, self._names, noticed)
        self._changed()

    def _go_on_recovering(self, event: Event) -> None:
        """Start the next generation as soon as there are workers for it."""
        replacement = self._replacement
        assert replacement is not None
        if isinstance(event, StartCancelled):
            self._conclude(Conclude("stopped"))
        elif isinstance(event, WorkerLost):
            self._supervisor.lost.add(event.address)
            self._tasks.lose(event.address)
        else:
            try:
                placement = replacement.look()
                if placement is not None:
                    self._start_recovered(placement, WALL.now() - replacement.noticed)
            except NotReplaced as error:
                self._conclude(Conclude("failed", f"{self._supervisor.cause}; {error}"))

    def _start_recovered(self, placement: Placement, passed: float) -> None:
        """Have the ranks go on from the newest point that is left; ``passed`` seconds after the loss was noticed."""
        way = self._tasks.way_on(placement.layout.size)
        if way.step < 0 and self.plan.resumed:
            raise NotReplaced("what the ranks had kept went with several of them, and other ranks had begun the run")
        told = recovered_ranks(
            way, self.placement, self._supervisor.lost, self.history.clock(placement.layout.workers) + passed
        )
        number = self._heard_from = self.generation.number + 1
        self.history.rewind(way.step)
        self._known = way.commands
        self._supervisor = self._supervisor.recovered(placement.addresses)
        self._tasks.current = []
        self.generation = Generation(
            number, self.plan.after_loss([r for r, t in told.items() if t.is_replacement]), placement
        )
        event_router.subscribe(self.client, self.run, placement.workers, self)
        self._place_ranks(self._tasks.sources(way), told)
        self._replacement = None

    def _abort(self, reason: str) -> None:
        living = [address for address in self.placement.workers if address not in self._supervisor.lost]
        if self.client.status == "running" and living:
            # Whoever does not hear it notices that its task is gone, or its links. The answers are not waited for: a
            # worker that just died would hold up the very event that says so.
            calls.tell_workers(self.client, calls.CALL_TIMEOUT, abort_ranks, self.run, reason, workers=living)

    def _check_heartbeat(self, stall: Stalled) -> None:
        with contextlib.suppress(Exception):
            silent = silent_rank(self.client, self.placement.addresses, self._supervisor.ended, stall)
            if silent is not None:
                self._events.put(silent)

    def _conclude(self, conclusion: Conclude) -> None:
        self.error = None if conclusion.error is None else printable(conclusion.error)
        self._supervisor.state = conclusion.state
        if conclusion.state == "failed":
            self._await_ends()
        self._fetch_result()

    def _await_ends(self) -> None:
        """Give ranks that were told to end a moment, so that nothing of them is left when the run is over."""
        self._abort(self.error or "the run failed")
        deadline = WALL.now() + ENDING / 2
        while (
            len(self._supervisor.ended) < len(self._tasks.current)
            and WALL.now() < deadline
            and self.client.status == "running"
        ):
            with contextlib.suppress(queue.Empty):
                event = self._events.get(timeout=0.02)
                if isinstance(event, Left | WorkerLost):
                    self._supervisor.note_end(event)

    def _fetch_result(self) -> None:
        self.result = self._tasks.result(self.client, self._supervisor.ended, self.plan)

    def _clean_up(self) -> None:
        futures = self._tasks.take_all()
        if self.client.status == "running":
            if self._supervisor.state == "failed":
                living = [address for address in self.placement.workers if address not in self._supervisor.lost]
                cancel_ranks(self.client, self.run, living, futures, ENDING / 2)
            for future in futures:
                future.release()
        sweep()
