"""Shared memory: ranks of one host that train on one vector; their counts lie beside it, and rank 0 calls them together."""

from __future__ import annotations

from typing import Final, final

import numpy as np

from scaleml.arrays import Array
from scaleml.comm.communicator import Communicator
from scaleml.runtime.coordinator import AsynchronousCoordinator, of_rank_0
from scaleml.runtime.plan import Plan
from scaleml.strategies.context import SparseGradient
from scaleml.telemetry.recorder import Recorder

REFUSAL: Final = (
    "{strategy!r} needs all its ranks in the shared memory of one host, and {why}: use ParameterServer('async'), which updates "
    "asynchronously over any network"
)
_CALL: Final = 10
"""The tag of rank 0's calls."""
_EVALUATE, _COMMAND, _OVER = b"e", b"c", b"."
_LINE: Final = 8
"""Items of 8 bytes in a line of the processor's cache: ranks that count beside each other must not share one."""


@final
class SharedMemoryCoordinator(AsynchronousCoordinator):
    """The memory that all ranks write, and how far each of them is.

    Each rank counts its updates and rows in the shared memory, where all read them, without locks: so it knows when the run has
    had its rows, and its staleness. What all have to do together (evaluations, commands) rank 0 calls them to: by messages,
    which have one order for all, and by a bell in the memory, so that nobody looks for messages at every step.

    Attributes
    ----------
    w : (P,) array
        The parameters.
    evaluations_due : int
        So far.
    done : bool
        Whether the run has had its rows.

    Raises
    ------
    ValueError
        When the ranks do not share one host's memory; says what to use instead.
    """

    def __init__(self, plan: Plan, group: Communicator, recorder: Recorder) -> None:
        self._group = group
        self._recorder = recorder
        w = group.shared_vector(plan.model.size, plan.model.dtype)
        board = group.shared_vector((group.size + 1) * _LINE, np.int64)
        if w is None or board is None:
            raise ValueError(REFUSAL.format(strategy=plan.strategy, why="here they have none in common"))
        self.w = w
        board = board.reshape(-1, _LINE)
        self._counts = board[:-1, :2]  # updates and rows of each rank
        self._mine = board[group.rank]
        self._bell = board[-1]
        self._answered = 0
        self._others = 0
        self._over = False
        self._before = np.array(plan.taken or [0.0] * group.size)
        self._counted_before = float(self._before.sum())
        self._total = plan.total - self._counted_before
        self._every = plan.evaluate_every

    def count(self, g: Array | SparseGradient) -> None:
        """Count an update by the gradient ``g``, with its tail, and see how many others there were since the last one."""
        mine = self._mine
        rows = int((g if isinstance(g, np.ndarray) else g.values)[-1])
        if rows:
            mine[0] += 1
            mine[1] += rows
        others = int(self._counts[:, 0].sum() - mine[0])
        self._recorder.staleness += others - self._others
        self._others = others

    def stepped(self, rows: int) -> None:
        """See how far all are, and hear what rank 0 calls to."""
        total = int(self._counts[:, 1].sum())
        self.done = total >= self._total
        if self._group.rank == 0:
            if self._every and not self.done and (total + self._counted_before) // self._every > self.evaluations_due:
                self.evaluations_due += 1
                self._call(_EVALUATE)
        else:
            while self._answered < self._bell[0]:
                self._hear()

    def taken(self) -> list[float]:
        """Return the rows of each rank: what they have counted."""
        counted: list[float] = (self._before + self._counts[:, 1]).tolist()
        return counted

    def announced(self) -> None:
        """On rank 0: have all others look for the command that was just announced."""
        self._call(_COMMAND)

    def leave(self, w: Array) -> bool:
        """Wait for the end after the last step; False if there is something to do with the others first."""
        if self._group.rank == 0:
            self._call(_OVER)
            return True
        if not self._over:  # else heard after the last step
            self._hear()
        return self._over

    def agreed(self, w: Array, workers: Communicator) -> Array:
        """Return what rank 0 sees now: the others may still write."""
        return of_rank_0(w, workers)

    def collect(self, w: Array, workers: Communicator) -> None:
        """Wait until nobody writes ``w`` any more."""
        workers.barrier()

    def _call(self, what: bytes) -> None:
        for rank in range(1, self._group.size):
            self._group.send(what, rank, tag=_CALL)
        self._bell[0] += 1

    def _hear(self) -> None:
        call = self._group.recv(0, tag=_CALL).payload
        self._answered += 1
        if call == _EVALUATE:
            self.evaluations_due += 1
        self._over = call == _OVER
