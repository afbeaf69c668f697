"""Carries out what the supervisor decides: places the ranks, passes on their words, ends and cleans up."""

from __future__ import annotations

import contextlib
import queue
import secrets
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from distributed import Client, Future

from scaleml.api.strategy_switch import successor
from scaleml.cluster import calls, config
from scaleml.cluster import event_router as inbox
from scaleml.cluster import launcher as starting
from scaleml.cluster.endpoint import deliver, end_ranks, peek
from scaleml.cluster.errors import StartFailed
from scaleml.cluster.events import (
    Abort,
    Applied,
    CheckHeartbeat,
    ClientLost,
    Conclude,
    Event,
    GivenUp,
    Instruction,
    Left,
    Stalled,
    Succeed,
    Tick,
    WorkerLost,
    event_of,
)
from scaleml.cluster.heartbeat import silent_rank
from scaleml.cluster.placement import Placement
from scaleml.cluster.staging.placing import PlacedData
from scaleml.cluster.supervisor import Supervisor
from scaleml.runtime.commands import Command
from scaleml.runtime.plan import Outcome, Plan
from scaleml.strategies import Strategy
from scaleml.telemetry.history import Mark, last_step

TICK: Final = 0.1
CALL: Final = 10.0
"""Seconds for a call to a worker that should answer in milliseconds."""
ENDING: Final = 2.0
"""Seconds for ranks that were told to end."""
_SLOW_DISK: Final = 100e6
"""Bytes a second that any disk can read."""


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
    """

    def __init__(self, client: Client, plan: Plan, placement: Placement, data: PlacedData) -> None:
        self.run = secrets.token_hex(16)
        self.client = client
        self.plan = plan
        self.placement = placement
        self.state = "starting"
        self.error: str | None = None
        self.params: Any = None
        self.outcome: Outcome | None = None
        self.topology: str | None = None
        self._data = data
        self._on_notes: Callable[[bytes, list[Any], list[Any]], None] | None = None
        self._on_mark: Mark | None = None
        self._on_change: Callable[[], None] | None = None
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._futures: list[Future[Any]] = []
        self._former: list[Future[Any]] = []
        self._next, self.generation = (plan, placement), 0
        self._seen = 0
        self._supervisor = Supervisor(placement.addresses, float("inf"), workers=placement.layout.workers)
        self._thread = threading.Thread(target=self._drive, name=f"scaleml-run-{self.run[:8]}", daemon=True)

    def start(
        self,
        on_notes: Callable[[bytes, list[Any], list[Any]], None],
        on_mark: Mark,
        on_change: Callable[[], None],
    ) -> None:
        """Begin, and return at once.

        Parameters
        ----------
        on_notes : callable
            Called with the history's new rows, evaluations and ends of epochs.
        on_mark : callable
            Called with what a `Change` in mid-run says.
        on_change : callable
            Called after each change of the run's state.
        """
        self._on_notes, self._on_mark, self._on_change = on_notes, on_mark, on_change
        self._thread.start()

    def join(self) -> None:
        """Wait for the thread's end."""
        self._thread.join()

    def send(self, command: Command) -> bool:
        """Bring a command to rank 0; False if that is not there any more."""
        address = self.placement.addresses[0]
        to = self.run, self.generation, 0
        answer = calls.on_workers(self.client, CALL, deliver, to, command, workers=[address])
        return bool(answer[address])

    def peek(self) -> Any:
        """Return the parameters that rank 0 kept last, if the run keeps them and it is still there."""
        address = self.placement.addresses[0]
        return calls.on_workers(self.client, CALL, peek, (self.run, self.generation, 0), workers=[address])[address]

    def give_up(self) -> None:
        """End a run that is still starting."""
        self._events.put(GivenUp())

    def succession(self, strategy: Strategy) -> tuple[Plan, Placement]:
        """Return how others would go on with another strategy; ValueError when they could not."""
        return successor(self.plan, strategy, self.placement, self._data, self.client)

    def follow_with(self, strategy: Strategy) -> None:
        """Have others go on with another strategy, once all ranks have been told to hand over."""
        self._next = self.succession(strategy)

    def has_applied(self, number: int) -> bool:
        """Whether command ``number`` has taken effect on all ranks."""
        return self._supervisor.has_applied(number)

    def applied_at(self, number: int) -> dict[int, int]:
        """Return, by rank, the step after which command ``number`` took effect."""
        return dict(self._supervisor.applied.get(number, {}))

    # What the event loop's thread calls: it only queues.

    def on_message(self, message: dict[str, Any]) -> None:
        """A rank reports."""
        if message["kind"] == "rows":
            assert self._on_notes is not None
            self._on_notes(message["rows"], message["evaluations"], message["epochs"])
            self._seen = max(self._seen, last_step(message["rows"]))
        elif message["kind"] == "mark":
            assert self._on_mark is not None
            what, fault = message.get("what", "setting"), message.get("fault")
            self._on_mark(message["time"], message["text"], message["step"], what, message["rank"], fault)
        elif message["generation"] == self.generation and (event := event_of(message)) is not None:
            self.topology = message.get("topology") or self.topology
            self._events.put(event)

    def on_worker_lost(self, address: str) -> None:
        """Dask removed a worker."""
        self._events.put(WorkerLost(address, self._seen))

    # The thread.

    def _drive(self) -> None:
        workers = self.placement.workers
        try:
            inbox.listen(self.client, self.run, workers, self)
            self._place_ranks()
            self._follow()
        except Exception as error:  # noqa: BLE001  whatever happens, the run must end and say why
            words = str(error) if isinstance(error, StartFailed) else f"{type(error).__name__}: {error}"
            self._conclude(Conclude("failed", words))
        finally:
            inbox.forget(self.run, workers, self)
            self._clean_up()
            self.state = self._supervisor.state
            self._changed()

    def _place_ranks(self) -> None:
        # Ranks read their data before they enter: a slow disk is no fault.
        patience = config.seconds("start-timeout") + self._data.nbytes / _SLOW_DISK
        run = starting.Start(self.client, self.run, self.plan, self.placement, patience, self.generation)
        parts = run.bring(self._data)  # first, for it may take long, and open places do not wait for ever
        answers = run.open_places()
        self._supervisor.busy = {address: answer["busy"] for address, answer in answers.items()}
        self._supervisor.start_by = time.monotonic() + run.patience
        run.send_ranks(answers, parts, self._futures, self._former)

    def _follow(self) -> None:
        while not self._supervisor.over:
            try:
                event: Event = self._events.get(timeout=TICK)
            except queue.Empty:
                event = Tick()
            self._handle(event)
            if self.client.status != "running":
                self._handle(ClientLost(self._why_client_lost()))

    def _handle(self, event: Event) -> None:
        before = self.state
        for instruction in self._supervisor.handle(event, time.monotonic()):
            self._perform(instruction)
        if not self._supervisor.over:
            self.state = self._supervisor.state
            self._former = [] if self.state == "running" else self._former
        if self.state != before or isinstance(event, Applied):
            self._changed()

    def _changed(self) -> None:
        assert self._on_change is not None
        self._on_change()

    def _perform(self, instruction: Instruction) -> None:
        if isinstance(instruction, Abort):
            self._abort(instruction.reason)
        elif isinstance(instruction, Succeed):
            self._succeed()
        elif isinstance(instruction, CheckHeartbeat):
            self._check_heartbeat(instruction.stall)
        else:
            self._conclude(instruction)

    def _succeed(self) -> None:
        """Have the next generation of ranks take over."""
        self.plan, self.placement = self._next
        self._former, self._futures = self._futures, []
        self._supervisor = self._supervisor.successor(self.placement.addresses)
        self.state = self._supervisor.state
        self.generation += 1
        self._place_ranks()

    def _abort(self, reason: str) -> None:
        living = [address for address in self.placement.workers if address not in self._supervisor.lost]
        if self.client.status == "running" and living:
            # Whoever does not hear it notices that its task is gone, or its links. The answers are not waited for: a
            # worker that just died would hold up the very event that says so.
            calls.tell_workers(self.client, CALL, end_ranks, self.run, reason, workers=living)

    def _check_heartbeat(self, stall: Stalled) -> None:
        with contextlib.suppress(Exception):
            silent = silent_rank(self.client, self.placement.addresses, self._supervisor.ended, stall)
            if silent is not None:
                self._events.put(silent)

    def _why_client_lost(self) -> str:
        scheduler = self.client.scheduler.address if self.client.scheduler else "unknown"
        return (
            f"the Dask client is {self.client.status}: it was closed, or the cluster at {scheduler} is gone; the ranks end by themselves. "
            "Start the run again with a client that is connected"
        )

    def _conclude(self, conclusion: Conclude) -> None:
        self.error = conclusion.error
        self._supervisor.state = conclusion.state
        if conclusion.state == "failed":
            self._await_ends()
        self._fetch_params()

    def _await_ends(self) -> None:
        """Give ranks that were told to end a moment, so that nothing of them is left when the run is over."""
        self._abort(self.error or "the run failed")
        deadline = time.monotonic() + ENDING / 2
        supervisor = self._supervisor
        supervisor.state = "failing"  # the last words of the ranks still count
        while (
            len(supervisor.ended) < len(self._futures)
            and time.monotonic() < deadline
            and self.client.status == "running"
        ):
            with contextlib.suppress(queue.Empty):
                event = self._events.get(timeout=0.02)
                if isinstance(event, Left):
                    supervisor.ended[event.rank] = event.status
                elif isinstance(event, WorkerLost):
                    supervisor.ended |= {
                        rank: "lost" for rank, at in enumerate(supervisor.addresses) if at == event.address
                    }
        supervisor.state = "failed"

    def _fetch_params(self) -> None:
        """Take the parameters from the first rank that has them."""
        workers = self.placement.layout.workers
        ended = self._supervisor.ended
        told = [future for rank, future in enumerate(self._futures[:workers]) if ended.get(rank, "lost") != "lost"]
        for future in [*told, *self._former[:workers]]:  # those who handed over, if the others did not get that far
            if self.client.status != "running":
                return
            with contextlib.suppress(Exception):
                outcome = future.result(timeout=CALL)
                if isinstance(outcome, Outcome) and outcome.params is not None:
                    self.params, self.outcome = outcome.params, outcome
                    return

    def _clean_up(self) -> None:
        futures, self._futures, self._former = [*self._futures, *self._former], [], []
        if self.client.status == "running":
            if self._supervisor.state == "failed":
                with contextlib.suppress(Exception):
                    calls.on_workers(
                        self.client,
                        ENDING / 2,
                        end_ranks,
                        self.run,
                        "the run failed",
                        workers=[address for address in self.placement.workers if address not in self._supervisor.lost],
                        on_error="ignore",
                    )
                with contextlib.suppress(Exception):
                    calls.within(self.client, CALL, self.client._cancel(futures, force=True), "cancelling the ranks")
            for future in futures:
                future.release()
