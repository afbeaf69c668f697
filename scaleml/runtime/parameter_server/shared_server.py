"""The shared-memory server: what a server works on, in memory of its host; whoever holds the lock is the server.

A push by message wakes the server's thread, which answers when the system lets it: two changes of threads an update, and beside a
training rank the interpreter's lock changes hands as often. Where an update is one worker's gradient, applied and answered at once,
nobody has to wait for anybody: so a worker of the same host takes the lock, does for itself what the server would have done, and
goes on. The server's own thread writes the history, and takes over for good when the memory is closed to workers: by whom a fault makes it
necessary that messages travel, or by the first message that comes.
"""

from __future__ import annotations

from typing import Final, final

import numpy as np
from numpy.typing import DTypeLike

from scaleml.arrays import Array
from scaleml.comm.communicator import Communicator, Lock
from scaleml.runtime.parameter_server.message_format import are_applied_together, slices
from scaleml.runtime.plan import Plan
from scaleml.runtime.train_state import TrainState

# Where in the tally what stands.
OPEN: Final = 0
"""Whether workers serve themselves; once it is 0 pushes go by message for good."""
VERSION, STALENESS, PUSHES = 1, 2, 3
"""Updates so far, the sum of their staleness, and pushes."""
ROWS, DUE = 4, 5
"""Rows so far, evaluations due so far."""
STEPS: Final = 6
"""Updates as the optimizer's rule counts them."""
APPLIED, EXCLUDED, LAST, SOURCE = 7, 8, 9, 10
"""Seconds of updating, seconds that workers were called away for, when the last push ended, and whose it was."""
CONTROL, RATE = 11, 12
"""Up to which of rank 0's commands the server has applied, and the learning rate by these."""
WIDEST: Final = 13
"""The most clocks that a push was ahead of the slowest worker."""
PREFIX: Final = "clients."
"""How the names of arrays begin that are no part of the slice."""
COUNTS, TAKEN, TALLY = f"{PREFIX}counts", f"{PREFIX}taken", f"{PREFIX}tally"
"""Where in a server's state, as others keep it, its updates and its widest clock stand; the rows of each worker; or the tally."""
HOLDER: Final = 14
"""Who took the lock last."""
CLOCKS: Final = 16
"""From here on: each worker's pushes, then each worker's rows."""

_LINE: Final = 64
"""Bytes of a line of the processor's cache: arrays begin with one."""


@final
class SharedMemoryServer:
    """One server's part of the parameters, its optimizer's state, and its tally.

    Attributes
    ----------
    tally : memoryview of float64
        What stands where the names above say; to be read and written under the lock.
    w : (n,) array
        The slice.
    state : dict of arrays
        The optimizer's.
    """

    def __init__(self, memory: Array, lock: Lock, plan: Plan, part: tuple[int, int]) -> None:
        self._lock = lock
        workers, size = plan.layout.workers, part[1] - part[0]
        at = 0

        def lay(count: int, dtype: DTypeLike) -> Array:
            nonlocal at
            begin, at = at, at + count * np.dtype(dtype).itemsize
            laid: Array = memory[begin:at].view(dtype)
            at += -at % _LINE
            return laid

        self._tally = lay(CLOCKS + 2 * workers, np.float64)
        self.tally: memoryview[float] = memoryview(self._tally.data).cast("B").cast("d")
        self.w = lay(size, plan.model.dtype)
        self.state = {name: lay(len(array), array.dtype) for name, array in _state(plan, size).items()}

    def acquire(self, rank: int) -> float:
        """Take the lock, before anything here is touched; return for how many seconds that had to wait."""
        waited = self._lock.acquire(self._holder)
        self.tally[HOLDER] = rank
        return waited

    def release(self) -> None:
        """Give the lock back."""
        self._lock.release()

    def slice_left(self, start: int) -> TrainState:
        """Return the slice, which begins at ``start``, as whoever is left sees it: views, for others may still write.

        A rank that died while it wrote has left one update half done; `settled` says of what.
        """
        arrays = {**self.state, TALLY: self._tally}
        return TrainState(self.w, arrays, start)

    def _holder(self) -> int:
        return int(self.tally[HOLDER])


def settled(left: TrainState, workers: int) -> TrainState:
    """Return a copy of a slice that was left in shared memory, with what its server would have kept beside it.

    Examples
    --------
    >>> tally = np.zeros(CLOCKS + 2)
    >>> tally[VERSION], tally[STEPS], tally[WIDEST], tally[-1] = 7, 6, 2, 56
    >>> found = settled(TrainState(np.ones(3), {TALLY: tally}), workers=1)
    >>> found.updates, {name: array.tolist() for name, array in found.arrays.items()}
    (6, {'clients.counts': [7.0, 2.0], 'clients.taken': [56.0]})
    """
    found = left.snapshot()
    tally = found.arrays.pop(TALLY)
    found.updates, found.step = int(tally[STEPS]), int(tally[VERSION])
    found.arrays[COUNTS] = tally[[VERSION, WIDEST]]
    found.arrays[TAKEN] = tally[CLOCKS + workers : CLOCKS + 2 * workers]
    return found


def shared_memory_servers(plan: Plan, group: Communicator) -> list[SharedMemoryServer] | None:
    """Make the memory that stands in for a run's servers, all zeros; collective. None where pushes go by message.

    That is: between hosts, where a worker may have to wait for others, and for keys or a codec's words, which have their own form.
    So do pushes that are copied to be read later, once for several servers: these must not close theirs one by one.
    """
    serving, servers = plan.serving, plan.layout.servers
    if not serving.answers_at_once or are_applied_together(plan):
        return None
    if plan.sparse or serving.compression is not None or (serving.overlap and servers > 1):
        return None
    made = []
    for part in slices(plan):
        found = group.locked_memory(_nbytes(plan, part[1] - part[0]))
        if found is None:
            return None
        made.append(SharedMemoryServer(*found, plan, part))
    return made


def _state(plan: Plan, size: int) -> dict[str, Array]:
    return plan.optimizer.init(size, plan.model.dtype)


def _nbytes(plan: Plan, size: int) -> int:
    arrays = [8 * (CLOCKS + 2 * plan.layout.workers), size * plan.model.dtype.itemsize]
    arrays += [array.nbytes for array in _state(plan, size).values()]
    return sum(nbytes + -nbytes % _LINE for nbytes in arrays)
