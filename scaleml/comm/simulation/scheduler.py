"""The scheduler of simulated ranks: threads of which one runs at a time, that whose virtual clock is least."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from math import inf
from typing import final

from scaleml.comm.errors import Deadlock
from scaleml.comm.transport.context import RankContext


@final
class VirtualClock:
    """A rank's clock: it stands still but for `sleep`, and for waiting.

    Attributes
    ----------
    seconds : float
        What it shows.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.now: Callable[[], float] = lambda: self.seconds
        self.pause: Callable[[float], None] = lambda until: None  # the scheduler's

    def sleep(self, seconds: float) -> None:
        """Let so many seconds pass; the others catch up meanwhile."""
        self.pause(self.seconds + max(0.0, seconds))


@final
class Task:
    """One rank as its scheduler sees it.

    Attributes
    ----------
    ready : callable
        When it can go on, as far as is known now; infinity for not yet.
    limit : float
        When it stops waiting anyway.
    what : str
        What it waits for.
    """

    def __init__(self, context: RankContext, clock: VirtualClock) -> None:
        self.context = context
        self.clock = clock
        self.rank = context.rank
        self.ready: Callable[[], float] = lambda: 0.0
        self.limit = inf
        self.what = "its turn"
        self.over = False
        self.turn = threading.Semaphore(0)

    def next_time(self) -> float:
        """When it can go on."""
        if self.context.reason is not None or self.context.closed:
            return self.clock.seconds
        return max(self.clock.seconds, min(self.ready(), self.limit))


@final
class Scheduler:
    """Lets the ranks take turns, so that everything happens in the order of virtual time.

    The rank that runs is always the one that can go on first (of several, the lowest), so whatever it does lies in nobody's past: a
    message that it finds to have come first really did, for no other rank can send an earlier one any more.
    """

    def __init__(self, tasks: list[Task]) -> None:
        self._tasks = tasks
        self._deadlock: str | None = None
        for task in tasks:
            task.clock.pause = partial(self._pause, task)

    def begin(self, task: Task) -> None:
        """In the rank's thread, first of all: wait for its turn."""
        task.turn.acquire()

    def start(self) -> None:
        """Give the first rank its turn."""
        self._next().turn.release()

    def wait(self, task: Task, ready: Callable[[], float], what: object, peer: int = -1, patient: bool = False) -> None:
        """Let the others run until `task` can go on; its clock then shows when that was.

        Parameters
        ----------
        ready : callable
            When that is, as far as is known; asked again as others go on.
        patient : bool
            Without the timeout.

        Raises
        ------
        Aborted, PeerTimeout, Deadlock
        """
        begun = task.clock.seconds
        task.ready, task.what = ready, str(what)
        task.limit = inf if patient else begun + task.context.timeout
        while True:
            self._yield(task)
            if self._deadlock is not None:
                raise Deadlock(self._deadlock, rank=task.rank, step=task.context.step)
            task.context.check()
            when = max(begun, ready())
            if when <= task.limit:
                task.clock.seconds = when
                return
            task.clock.seconds = task.limit
            task.context.stalled(peer, what, task.limit - begun)
            task.limit += task.context.timeout

    def end(self, task: Task) -> None:
        """The rank is through: let another one run."""
        task.over = True
        if any(not other.over for other in self._tasks):
            self._next().turn.release()

    def _pause(self, task: Task, until: float) -> None:
        self.wait(task, lambda: until, "its own time", patient=True)

    def _yield(self, task: Task) -> None:
        chosen = self._next()
        if chosen is not task:
            chosen.turn.release()
            task.turn.acquire()

    def _next(self) -> Task:
        waiting = [task for task in self._tasks if not task.over]
        if self._deadlock is None and min(task.next_time() for task in waiting) == inf:
            names = "; ".join(
                f"rank {task.rank} at step {task.context.step} waits for {task.what} since {task.clock.seconds:.6g} s"
                for task in waiting
            )
            over = ", ".join(str(task.rank) for task in self._tasks if task.over)
            self._deadlock = f"nobody can go on: {names}" + (f"; through are ranks {over}" if over else "")
        if self._deadlock is not None:
            return waiting[0]
        return min(waiting, key=lambda task: (task.next_time(), task.rank))
