"""Driver of a run: a thread that carries out what the supervisor decides: places the ranks, passes on their events, ends and cleans up."""

from __future__ import annotations

import contextlib
import logging
import queue
import secrets
import threading
from collections.abc import Callable
from typing import Final, TypeVar

from distributed import Client, Future

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
from scaleml.cluster.results import Result, gather_result
from scaleml.cluster.staging.placed_data import PlacedData
from scaleml.cluster.supervisor import Supervisor
from scaleml.cluster.task_watch import TaskWatch
from scaleml.escaping import printable
from scaleml.owned_files import sweep
from scaleml.runtime.commands import Command
from scaleml.runtime.outcome import Outcome
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
        self._futures: list[Future[Outcome | None]] = []
        self._former: list[Future[Outcome | None]] = []
        self._former_plan = plan
        self._next: Generation | None = None
        self._last_step = 0
        self._supervisor = Supervisor(placement.addresses, float("inf"), workers=placement.layout.workers)
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
        """Bring a command to rank 0; False if that is not there any more."""
        _log.debug("run %s: command %d: %s %s", self.name, command.number, command.verb, command.settings)
        return self._ask_rank_0(deliver_command, command)

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
            self._place_ranks()
            self._follow()
        except Exception as error:  # noqa: BLE001  whatever happens, the run must end and say why
            words = str(error) if isinstance(error, StartFailed) else words_of(error)
            self._conclude(Conclude("failed", words))
        finally:
            event_router.unsubscribe(self.run, workers, self)
            self._clean_up()
            self.state = self._supervisor.state
            _log.info("run %s: %s%s", self.name, self.state, f": {self.error}" if self.error else "")
            self._changed()

    def _place_ranks(self) -> None:
        # Ranks read their data before they enter: a slow disk is no fault.
        patience = config.seconds("start-timeout") + self.data.nbytes / _SLOW_DISK
        now = self.generation
        launcher = Launcher(self.client, self.run, now, patience)
        launcher.bring(self.data)  # first, for it may take long, and open endpoints do not wait for ever
        endpoints = launcher.open_endpoints()
        self._supervisor.busy = {address: opened["busy"] for address, opened in endpoints.items()}
        self._supervisor.paused = {address for address, opened in endpoints.items() if opened["is_paused"]}
        self._supervisor.start_by = WALL.now() + launcher.patience
        self._watch = TaskWatch(self.client, self._futures)
        launcher.submit(endpoints, self._futures, self._former)
        ranks = ", ".join(f"{rank} on {address}" for rank, address in enumerate(now.placement.addresses))
        _log.info("run %s: placed the ranks of %r: %s", self.name, now.plan.strategy, ranks)

    def _follow(self) -> None:
        while not self._supervisor.over:
            try:
                event: Event = self._events.get(timeout=TICK)
            except queue.Empty:
                event = Tick()
            self._handle(event)
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
            self._former = [] if self.state == "running" else self._former
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
        elif isinstance(instruction, CheckHeartbeat):
            self._check_heartbeat(instruction.stall)
        else:
            self._conclude(instruction)

    def _start_next_generation(self) -> None:
        assert self._next is not None
        self._former, self._futures = self._futures, []
        self._former_plan = self.plan
        self._supervisor = self._supervisor.next_generation(self._next.placement.addresses)
        # Before the generation: who sees the new one must not see the old one's state.
        self.state = self._supervisor.state
        self.generation, self._next = self._next, None
        self._place_ranks()

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
            len(self._supervisor.ended) < len(self._futures)
            and WALL.now() < deadline
            and self.client.status == "running"
        ):
            with contextlib.suppress(queue.Empty):
                event = self._events.get(timeout=0.02)
                if isinstance(event, Left | WorkerLost):
                    self._supervisor.note_end(event)

    def _fetch_result(self) -> None:
        ended = self._supervisor.ended
        told = {rank: future for rank, future in enumerate(self._futures) if ended.get(rank, "lost") != "lost"}
        former = dict(enumerate(self._former))  # those who handed over, if the others did not get that far
        generations = [(told, self.plan.partition), (former, self._former_plan.partition)]
        self.result = gather_result(self.client, generations)

    def _clean_up(self) -> None:
        futures, self._futures, self._former = [*self._futures, *self._former], [], []
        if self.client.status == "running":
            if self._supervisor.state == "failed":
                living = [address for address in self.placement.workers if address not in self._supervisor.lost]
                cancel_ranks(self.client, self.run, living, futures, ENDING / 2)
            for future in futures:
                future.release()
        sweep()
