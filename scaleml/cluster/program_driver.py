"""Driver of a program: a thread that places its ranks, passes on what they print, and ends them."""

from __future__ import annotations

import contextlib
import logging
import queue
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, final

from distributed import Client, Future

from scaleml.clock import WALL
from scaleml.cluster import calls, config, event_router
from scaleml.cluster.cancellation import cancel_ranks, tell_to_end
from scaleml.cluster.embedded import is_embedded
from scaleml.cluster.errors import StartFailed, words_of
from scaleml.cluster.events import (
    Abort,
    Beat,
    ClientLost,
    Conclude,
    Event,
    Examine,
    Instruction,
    Left,
    Marked,
    Printed,
    RankEvent,
    Recorded,
    StartCancelled,
    Tick,
    WorkerLost,
)
from scaleml.cluster.gathering import Gathering
from scaleml.cluster.heard_ranks import HeardRanks
from scaleml.cluster.heartbeat import examine, why_client_lost
from scaleml.cluster.placement import Placement
from scaleml.cluster.program import Call, ProgramOutcome, ProgramSettings
from scaleml.cluster.program_task import program_main
from scaleml.cluster.submission import submit
from scaleml.cluster.supervisor import Supervisor
from scaleml.cluster.task_watch import TaskWatch
from scaleml.cluster.user_modules import carried_modules
from scaleml.data.sealed import seal
from scaleml.owned_files import sweep

TICK: Final = 0.1
ENDING: Final = 4.0
"""Seconds for ranks that were told to end."""
_SCATTERED: Final = 1 << 20
"""Bytes from which a function and its arguments are brought to the workers once, not with every task."""
_BANDWIDTH: Final = 10e6
"""Bytes a second that any network carries."""

Line = tuple[int, str, str]
"""A rank, its stream, and a line of text."""

_log = logging.getLogger(__name__)


@final
class ProgramDriver:
    """Runs a function on ranks: a thread around a supervisor.

    Parameters
    ----------
    client : Client
        The cluster.
    placement : Placement
        The ranks' workers.
    call : Call
        The function and its arguments.
    settings : ProgramSettings
        What all ranks are told.

    Attributes
    ----------
    outcomes : list of ProgramOutcome or None
        How each rank ended, once that is over; None for what could not be fetched.
    error : str or None
        Why it failed.
    culprit : int or None
        The rank whose own error that was.
    stuck : list of str
        Workers whose rank has not ended, and could not be made to.
    """

    def __init__(self, client: Client, placement: Placement, call: Call, settings: ProgramSettings) -> None:
        self.run: Final = secrets.token_hex(16)
        self.outcomes: list[ProgramOutcome | None] = [None] * len(placement.addresses)
        self.error: str | None = None
        self.culprit: int | None = None
        self.stuck: list[str] = []
        self._client = client
        self._placement = placement
        self._call = call
        self._settings = settings
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._lines: queue.SimpleQueue[Line | None] = queue.SimpleQueue()
        self._futures: list[Future[ProgramOutcome | None]] = []
        self._supervisor = Supervisor(
            placement.addresses,
            float("inf"),
            workers=len(placement.addresses),
            counts_steps=False,
            timeout=config.seconds("comm.timeout"),
        )
        self._heard = HeardRanks()
        self._watch = TaskWatch(client, self._futures)
        self._thread = threading.Thread(target=self._drive, name=f"scaleml-run-{self.run[:8]}", daemon=True)

    def start(self) -> None:
        """Begin, and return at once."""
        self._thread.start()

    def lines(self) -> Iterator[Line]:
        """Yield what the ranks print, as it comes, until all is over."""
        while (line := self._lines.get()) is not None:
            yield line
        self._thread.join()

    def stop(self) -> None:
        """Have all ranks end."""
        self._events.put(StartCancelled())

    # What the event loop's thread calls: it only queues.

    def on_rank_event(self, event: RankEvent, generation: int) -> None:
        """A rank reports."""
        self._heard.add(event.rank)
        if isinstance(event, Printed):
            for stream, text in event.lines:
                self._lines.put((event.rank, stream, text))
        elif not isinstance(event, Recorded | Marked | Beat):
            self._events.put(event)

    def on_worker_leaving(self, address: str) -> None:
        """Nothing: a program ends when its worker does."""

    def on_worker_lost(self, address: str) -> None:
        """Dask removed a worker."""
        self._events.put(WorkerLost(address))

    # The thread.

    def _drive(self) -> None:
        workers = self._placement.workers
        try:
            sweep()
            event_router.subscribe(self._client, self.run, workers, self)
            self._place_ranks()
            self._follow()
        except Exception as error:  # noqa: BLE001  whatever happens, it must end and say why
            words = str(error) if isinstance(error, StartFailed) else words_of(error)
            self._conclude(Conclude("failed", words))
        finally:
            with contextlib.suppress(Exception):
                self._clean_up()
            event_router.unsubscribe(self.run, self)
            self._lines.put(None)

    def _place_ranks(self) -> None:
        addresses = self._placement.addresses
        patience = config.seconds("start-timeout")
        gathering = Gathering(self._client, self.run, 0, self._placement, patience)
        carried = carried_modules(self._client, self._placement.workers, self._call)
        work = seal(_unpacked, self._call, apart=Future, carried=carried)
        brought = self._brought(work.call)
        endpoints = gathering.open_endpoints()
        self._supervisor.busy = {address: opened["busy"] for address, opened in endpoints.items()}
        self._supervisor.paused = {address for address, opened in endpoints.items() if opened["is_paused"]}
        self._supervisor.start_by = WALL.now() + patience
        for spec, address in zip(gathering.specs(endpoints), addresses, strict=True):
            future = submit(
                self._client,
                program_main,
                brought,
                list(work.apart),
                spec,
                self._settings,
                key=spec.task,
                workers=[address],
                allow_other_workers=False,
                retries=0,
                resources=self._placement.resources or None,
                priority=1,
            )
            self._futures.append(future)
        ranks = ", ".join(f"{rank} on {address}" for rank, address in enumerate(addresses))
        _log.info("program %s: placed ranks %s", self.run[:8], ranks)

    def _brought(self, work: Callable[..., Call]) -> object:
        """Return what the ranks are to call, or a future of it where it is large."""
        size = len(work.args[0]) if hasattr(work, "args") else 0
        if size < _SCATTERED:
            return work
        workers = list(self._placement.workers)
        seconds = calls.CALL_TIMEOUT + size * len(workers) / _BANDWIDTH
        scattering = self._client._scatter(work, workers=workers, broadcast=True, hash=False)
        try:
            return calls.within(self._client, seconds, scattering, "bringing the arguments to the workers")
        except TimeoutError as error:
            silent = ", ".join(calls.unanswering(self._client, workers)) or "none of them"
            raise StartFailed(f"{error}; who does not answer at all: {silent}") from error

    def _follow(self) -> None:
        while not self._supervisor.over:
            try:
                event: Event = self._events.get(timeout=TICK)
            except queue.Empty:
                event = Tick(self._heard.take())
            self._handle(event)
            if self._client.status != "running":
                self._handle(ClientLost(why_client_lost(self._client)))
            elif isinstance(event, Tick):
                for seen in self._watch.look(self._supervisor.ended, WALL.now()):
                    self._handle(seen)

    def _handle(self, event: Event) -> None:
        if not isinstance(event, Tick):
            _log.debug("program %s: %r", self.run[:8], event)
        for instruction in self._supervisor.handle(event, WALL.now()):
            self._perform(instruction)

    def _perform(self, instruction: Instruction) -> None:
        if isinstance(instruction, Abort):
            self._abort(instruction.reason)
        elif isinstance(instruction, Examine):
            for seen in examine(self._client, {rank: self._placement.addresses[rank] for rank in instruction.ranks}):
                self._events.put(seen)
        elif isinstance(instruction, Conclude):
            self._conclude(instruction)

    def _abort(self, reason: str) -> None:
        tell_to_end(self._client, self.run, self._living(), reason)

    def _living(self) -> list[str]:
        return [address for address in self._placement.workers if address not in self._supervisor.lost]

    def _conclude(self, conclusion: Conclude) -> None:
        self.error = conclusion.error
        self.culprit = self._supervisor.failure.culprit(self._supervisor.ended)
        self._supervisor.state = conclusion.state
        if conclusion.state != "finished":
            self._await_ends()
        self._fetch(range(len(self._futures)) if conclusion.state == "finished" else self._failed())

    def _failed(self) -> Sequence[int]:
        return [] if self.culprit is None or self.culprit not in self._supervisor.ended else [self.culprit]

    def _await_ends(self) -> None:
        """Give ranks that were told to end a moment; who does not hear is told again."""
        deadline = WALL.now() + ENDING
        told = WALL.now()
        self._abort(self.error or "the program was stopped")
        while self._still_here() and WALL.now() < deadline and self._client.status == "running":
            with contextlib.suppress(queue.Empty):
                event = self._events.get(timeout=0.02)
                if isinstance(event, Left | WorkerLost):
                    self._supervisor.note_end(event)
            if WALL.now() - told > ENDING / 4:
                told = WALL.now()
                self._abort(self.error or "the program was stopped")

    def _still_here(self) -> list[int]:
        return [rank for rank in range(len(self._futures)) if rank not in self._supervisor.ended]

    def _fetch(self, ranks: Sequence[int]) -> None:
        if self._client.status != "running" or not ranks:
            return
        seconds = calls.CALL_TIMEOUT + len(ranks) * self._settings.result_limit / _BANDWIDTH
        try:
            fetching = self._client._gather([self._futures[rank] for rank in ranks])
            found = calls.within(self._client, seconds, fetching, "fetching what the ranks have returned")
        except Exception as error:  # noqa: BLE001  of a worker that is gone by now, say
            self.error = self.error or f"what the ranks have returned could not be fetched: {words_of(error)}"
            return
        for rank, outcome in zip(ranks, found, strict=True):
            self.outcomes[rank] = outcome

    def _clean_up(self) -> None:
        futures, self._futures = self._futures, []
        ended, stalled = self._supervisor.ended, self._supervisor.stalled
        stuck = [
            rank for rank in range(len(futures)) if rank not in ended or self._placement.addresses[rank] in stalled
        ]
        if self._client.status == "running":
            if self._supervisor.state != "finished":
                cancel_ranks(self._client, self.run, self._living(), futures, calls.CALL_TIMEOUT / 2)
            for future in futures:
                future.release()
            if stuck:
                self._end_stuck([self._placement.addresses[rank] for rank in stuck])
        sweep()

    def _end_stuck(self, workers: list[str]) -> None:
        """End ranks that wait outside of Python, where nothing reaches them, with their processes, if these are ours."""
        if not is_embedded(self._client):
            self.stuck = workers
            return
        _log.info("program %s: restarting %s, whose rank did not end", self.run[:8], ", ".join(workers))
        with contextlib.suppress(Exception):
            self._client.restart_workers(workers, timeout=2 * calls.CALL_TIMEOUT, raise_for_error=False)


def _unpacked(call: tuple[Callable[..., object], Sequence[object], Mapping[str, object]]) -> Call:
    """Return a call as it was unpickled: on a rank, where an error in that has the rank's name."""
    return call
