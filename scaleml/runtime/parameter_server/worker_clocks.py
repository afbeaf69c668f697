"""Worker clocks: how far each worker has come, and who may go on under a bound of staleness."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final


@final
class WorkerClocks:
    """The workers' clocks, as one server sees them: a worker's clock is the number of its pushes.

    A worker may begin its next push when its clock is at most ``ahead`` above the slowest worker's. So no push is ever more
    than ``ahead`` clocks ahead of the slowest, which `tick` sees to.

    Parameters
    ----------
    workers : int
        How many there are.

    Attributes
    ----------
    widest : int
        The largest number of clocks that a push was ahead of the slowest worker.

    Examples
    --------
    >>> clocks = WorkerClocks(2)
    >>> clocks.tick(0, ahead=1)
    >>> clocks.may_go_on(0, ahead=1), clocks.may_go_on(0, ahead=0)
    (True, False)
    >>> clocks.tick(0, ahead=1)
    >>> clocks.may_go_on(0, ahead=1), clocks.slowest, clocks.widest
    (False, 1, 1)
    >>> clocks.leave(1)
    >>> clocks.may_go_on(0, ahead=1)
    True
    """

    def __init__(self, workers: int) -> None:
        self._clocks = dict.fromkeys(range(workers), 0)
        self.widest = 0

    @property
    def workers(self) -> int:
        """How many have not left."""
        return len(self._clocks)

    @property
    def slowest(self) -> int:
        """The worker that is furthest behind; -1 when all have left."""
        return min(self._clocks, key=self._clocks.__getitem__, default=-1)

    @property
    def level(self) -> bool:
        """Whether all are at the same clock: one is complete, the next not begun."""
        return len(set(self._clocks.values())) <= 1

    def tick(self, worker: int, ahead: float) -> None:
        """Count a push."""
        clocks = self._clocks
        gap = clocks[worker] - min(clocks.values())
        if gap > ahead:
            raise RuntimeError(f"rank {worker} pushed {gap} clocks ahead of the slowest; {ahead} are allowed")
        if gap > self.widest:
            self.widest = gap
        clocks[worker] += 1

    def go_on(self, widest: int) -> None:
        """Go on after a loss: all workers begin at one clock."""
        self.widest = widest

    def resume(self, clocks: Sequence[float], widest: float) -> None:
        """Go on from what others have counted."""
        self._clocks = {worker: int(clock) for worker, clock in enumerate(clocks)}
        self.widest = int(widest)

    def leave(self, worker: int) -> None:
        """Count a worker no more: nobody waits for it."""
        del self._clocks[worker]

    def may_go_on(self, worker: int, ahead: float) -> bool:
        """Whether a worker may begin its next push."""
        return self._clocks[worker] - min(self._clocks.values()) <= ahead
