"""Supervisor of a run: a pure state machine, events in, instructions out; no clock and no I/O of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from scaleml.cluster import failure_words as words
from scaleml.cluster.events import (
    OVER,
    Abort,
    Applied,
    Arrived,
    ClientBack,
    ClientLost,
    Conclude,
    Entered,
    Event,
    Examine,
    Examined,
    Instruction,
    Left,
    RankFailed,
    Recover,
    RunState,
    Stalled,
    StartCancelled,
    StartNextGeneration,
    Tick,
    WorkerLost,
)
from scaleml.cluster.failure import Failure
from scaleml.cluster.failure_detector import FailureDetector

SETTLE: Final = 1.0
"""Seconds to wait for the root of a failure after its first sign, and for the other ranks to end."""


@dataclass
class Supervisor:
    """What is known of a run's ranks, and what follows from it.

    Parameters
    ----------
    addresses : sequence of str
        The Dask worker of each rank.
    start_by : float
        When all ranks must have entered, on the clock that ``handle`` is told.
    workers : int
        How many of the ranks train: those that confirm commands.
    busy : dict
        What else each worker is running, for the error when a rank is late.
    paused : set
        The workers that took no tasks then.
    recovers : bool
        Whether the ranks keep what others could go on from, should some be lost.
    handed : bool
        Whether ranks before these have left what others could start from, should some be lost before all have entered.
    patience : float
        Seconds that the others then have to come to their end.
    counts_steps : bool
        Whether the ranks have steps to name in errors: a program of the user's has none.
    timeout : float
        Seconds without a sign of life after which a rank is suspected.

    Attributes
    ----------
    state : str
        The run's state.
    applied : dict
        Command number -> rank -> the step after which that rank applied it.
    is_over_to_others : bool
        Whether others are to go on in place of these ranks.
    lost, stalled : set of str
        The workers that count as gone; those of them that may be there still, but were found stalled.
    """

    addresses: Sequence[str]
    start_by: float
    busy: dict[str, list[str]] = field(default_factory=dict)
    paused: set[str] = field(default_factory=set)
    workers: int = 0
    counts_steps: bool = True
    timeout: float = 30.0
    state: RunState = "starting"
    applied: dict[int, dict[int, int]] = field(default_factory=dict)
    arrived: set[int] = field(default_factory=set)
    recovers: bool = False
    handed: bool = False
    patience: float = 30.0
    points: dict[int, dict[int, int]] = field(default_factory=dict)
    standings: dict[int, Mapping[str, object]] = field(default_factory=dict)
    entered: set[int] = field(default_factory=set)
    ended: dict[int, str] = field(default_factory=dict)
    steps: dict[int, int] = field(default_factory=dict)
    lost: set[str] = field(default_factory=set)
    stalled: set[str] = field(default_factory=set)
    is_over_to_others: bool = False
    _last_step: int = 0
    _is_paused: bool = False
    _first_applied: dict[int, tuple[str, float]] = field(default_factory=dict)
    _settled: set[int] = field(default_factory=set)

    @cached_property
    def failure(self) -> Failure:
        """The signs that something is wrong."""
        return Failure(self.addresses, self.counts_steps)

    @cached_property
    def _detector(self) -> FailureDetector:
        return FailureDetector(len(self.addresses), self.timeout)

    @property
    def over(self) -> bool:
        """Whether the run has come to its end."""
        return self.state in OVER

    def has_applied(self, number: int) -> bool:
        """Whether all ranks that train have applied command ``number``.

        Where ranks keep their own pace, one may wait for the others in an evaluation while they are parked: after a
        moment rank 0 speaks for all.
        """
        return number in self._settled or len(self.applied.get(number, ())) == self.workers

    def next_generation(self, addresses: Sequence[str], workers: int) -> Supervisor:
        """Return the supervisor of the ranks that go on in place of these, of which so many train."""
        return Supervisor(
            addresses,
            float("inf"),
            workers=workers,
            timeout=self.timeout,
            applied=self.applied,
            lost=self.lost,
            _settled=self._settled,
        )

    def recovered(self, addresses: Sequence[str], workers: int) -> Supervisor:
        """Return the supervisor of the ranks that go on after a loss, not all of them at the same workers."""
        after = self.next_generation(addresses, workers)
        after.state, after.recovers, after.patience = "recovering", True, self.patience
        after.lost = self.lost - {*addresses}  # a worker may come back at its address
        return after

    @property
    def has_begun(self) -> bool:
        """Whether all ranks have entered."""
        return len(self.entered) == len(self.addresses)

    @property
    def suspended(self) -> dict[int, str]:
        """The ranks that could go on, and where what they have kept lies."""
        return {rank: self.addresses[rank] for rank, status in self.ended.items() if status == "suspended"}

    @property
    def last_step(self) -> int:
        """How far the ranks had come, as far as they have told."""
        return max(self.steps.values(), default=self._last_step)

    @property
    def cause(self) -> str:
        """Why the run fails, if it does, or what others recover from."""
        return self.failure.cause(self.ended, self.last_step)

    def train_again(self) -> None:
        """Take all ranks for lost, which had ended."""
        self.ended, self.state = dict.fromkeys(self.ended, "lost"), "recovering"

    def note_end(self, event: Left | WorkerLost) -> None:
        """Note that ranks have come to their end, also after the run's."""
        if isinstance(event, Left):
            self.ended[event.rank] = event.status
        else:
            self.ended |= {rank: "lost" for rank, address in enumerate(self.addresses) if address == event.address}

    def handle(self, event: Event, now: float) -> list[Instruction]:
        """Take in an event at time ``now`` (seconds) and say what is to be done."""
        if self.over:
            return []
        instructions = self._take_in(event, now)
        return instructions + self._conclusion(now)

    def _take_in(self, event: Event, now: float) -> list[Instruction]:
        if isinstance(event, Arrived):
            self.arrived.add(event.rank)
        elif isinstance(event, Entered):
            self.entered.add(event.rank)
            if self.has_begun and self.state in ("starting", "recovering"):
                self.state = "paused" if self._is_paused else "running"
        elif isinstance(event, Left | RankFailed):
            return self._on_rank_end(event, now)
        elif isinstance(event, Stalled):
            self._detector.wait(event)
        elif isinstance(event, Examined):
            return self._on_examined(event, now)
        elif isinstance(event, Applied):
            self.applied.setdefault(event.number, {})[event.rank] = event.step
            if event.rank == 0:
                self._first_applied[event.number] = event.verb, now
            if self.has_applied(event.number):
                self._settle_command(event.number, event.verb)
        elif isinstance(event, Tick):
            self._detector.tick(now)
            self._detector.hear(event.heard)
            return self._on_tick(now)
        else:
            return self._on_outside_failure(event, now)
        return []

    def _on_outside_failure(
        self, event: WorkerLost | ClientLost | ClientBack | StartCancelled, now: float
    ) -> list[Instruction]:
        if isinstance(event, WorkerLost):
            return self._on_worker_lost(event, now) if event.address in self.addresses else []
        return self._begin_failure(now, self.failure.note(event))

    def _on_tick(self, now: float) -> list[Instruction]:
        for number, (verb, since) in list(self._first_applied.items()):
            if now - since > SETTLE:
                self._settle_command(number, verb)
        if self.state in ("starting", "recovering") and now > self.start_by and self.failure.late is None:
            self.failure.late = self._late_rank()
            return self._begin_failure(now, self.failure.late)
        suspects = self._detector.suspects(self.ended)
        return [Examine(suspects)] if suspects else []

    def _settle_command(self, number: int, verb: str) -> None:
        self._settled.add(number)
        self._first_applied.pop(number, None)
        if verb in ("pause", "resume"):
            self._is_paused = verb == "pause"
            if self.has_begun:  # after a loss the first ranks may be told of a pause before the last has entered
                self.state = "paused" if self._is_paused else "running"

    def _on_rank_end(self, event: Left | RankFailed, now: float) -> list[Instruction]:
        self.steps[event.rank] = event.step
        if self.ended.get(event.rank) == "lost":  # the news of its worker came first; or it was stalled, and woke
            return []
        if isinstance(event, Left):
            self.ended[event.rank] = event.status
            self.points[event.rank] = dict(event.points)  # type: ignore[arg-type]
            self.standings[event.rank] = event.standing
            if event.status not in ("failed", "suspended") or self.failure.names(event.rank):
                return []
            event = RankFailed(event.rank, "it did not say why", "peer", event.step)
        return self._begin_failure(now, self.failure.note(event))

    def _on_worker_lost(self, event: WorkerLost, now: float) -> list[Instruction]:
        self._last_step = max(self._last_step, event.step)
        return self._lose(event.address, f"the Dask worker {event.address} is gone", now)

    def _on_examined(self, event: Examined, now: float) -> list[Instruction]:
        silence = None if event.rank in self.ended else self._detector.judge(event)
        if silence is None:
            return []
        self._last_step = max(self._last_step, event.step)
        self.stalled.add(address := self.addresses[event.rank])
        return self._lose(address, self.failure.note(silence), now)

    def _lose(self, address: str, reason: str, now: float) -> list[Instruction]:
        alive = [rank for rank, at in enumerate(self.addresses) if at == address and rank not in self.ended]
        self.lost.add(address)
        for rank in alive:
            self.ended[rank] = "lost"
        return self._begin_failure(now, reason) if alive else []

    def _begin_failure(self, now: float, reason: str) -> list[Instruction]:
        return [Abort(reason)] if self.failure.begin(now) else []

    def _conclusion(self, now: float) -> list[Instruction]:
        all_ended, failure = len(self.ended) == len(self.addresses), self.failure
        if failure.since is None:
            if not all_ended:
                return []
            if "switched" in self.ended.values():
                return [StartNextGeneration()]
            self.state = "stopped" if "stopped" in self.ended.values() else "finished"
            return [Conclude(self.state)]
        waited = now - failure.since
        known = failure.root(self.ended, self.last_step) is not None or failure.is_known
        if all_ended and self._has_handed_over and failure.is_loss(bool(self.lost)):
            return [StartNextGeneration()]
        if self._may_recover:
            if all_ended and (known or waited > SETTLE):
                self.state, before = "recovering", self.is_over_to_others
                self.is_over_to_others = True
                return [] if before else [Recover()]
            if waited <= self.patience:
                return []
        if failure.cancelled:
            if not all_ended and waited <= SETTLE:
                return []
            self.state = "stopped"
            return [Conclude("stopped")]
        # A lost peer is a consequence: Dask may need a moment to say whose worker died.
        if (all_ended and known) or failure.client_lost is not None or waited > SETTLE:
            self.state = "failed"
            return [Conclude("failed", self.cause)]
        return []

    @property
    def _has_handed_over(self) -> bool:
        """Whether all have, also one that left, and was gone before its last words came; servers just finish."""
        return {*self.ended.values()} - {"finished"} == {"switched", "lost"}

    @property
    def _may_recover(self) -> bool:
        """Whether others may go on, of ranks that had begun, or have been handed what they begin with."""
        has_something = self.recovers if self.state != "starting" else self.handed and not self.has_begun
        return has_something and self.failure.is_loss(bool(self.lost))

    def _late_rank(self) -> str:
        missing = set(range(len(self.addresses))) - self.entered
        rank, silent = words.late_rank(missing, self.arrived, self._detector.silence)
        address = self.addresses[rank]
        return words.late(rank, address, self.busy.get(address, []), silent, is_paused=address in self.paused)
