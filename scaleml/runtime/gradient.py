"""The gradient of a rank's part of the batch: what a strategy asks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isfinite
from weakref import WeakMethod

import numpy as np

from scaleml.arrays import Array, namespace
from scaleml.comm.communicator import Communicator
from scaleml.data.batches import Batches
from scaleml.models.flat_model import Stochastic, parts_of
from scaleml.runtime.errors import NonFinite, is_finite
from scaleml.runtime.fault_injection import pause
from scaleml.runtime.plan import Plan
from scaleml.strategies.context import TAIL, SparseGradient
from scaleml.telemetry.recorder import Recorder

__all__ = ["TAIL", "Gradient", "rows_at_once"]

_DENSE, _SPARSE = 1 << 20, 1 << 25
"""Bytes of X whose gradient is computed at once: dense ones stay in the processor's cache for their second use. Measured on 200,000 x 200
float64, one core: 0.098 s a pass, 0.169 s at once; of CSR rows each part's whole vector would cost more than that gains."""

_MOST_IN_A_ROW = 100
"""Parts of batches that may be left out one after the other: then nothing is learnt any more."""
_TOLD = frozenset({*range(1, 4), *(10**power for power in range(1, 7))})
"""Which of all that are left out are told of."""


def rows_at_once(row_nbytes: float, size: int, *, sparse: bool) -> int:
    """Return how many rows of a rank, of so many bytes, a gradient of ``size`` items is computed of at a time.

    Examples
    --------
    >>> rows_at_once(1600, 201, sparse=False), rows_at_once(600, 2**18, sparse=True)
    (655, 55924)
    """
    nbytes = max(_SPARSE, 32 * size) if sparse else _DENSE
    return max(64, int(nbytes / max(1.0, row_nbytes)))


class Gradient:
    """Computes gradients at the rank's place in the epoch.

    Parameters
    ----------
    plan : Plan
        The run.
    world : Communicator
        All ranks; stamps messages with the step and the seconds of computing.
    batches : Batches
        This rank's data.
    buffer : (P + 3,) array
        Where gradients are written: memory that the communicator can send from without copying.
    recorder : Recorder
        Where time and losses are noted.

    Attributes
    ----------
    consumed, count : int
        Where in the epoch the batch begins, and how many rows it has over all ranks.
    last_rows : int
        How many rows of it this rank had.
    buffer : (P + 3,) array
        Where they are written.
    skips : bool
        Whether rows are left out whose loss or gradient is not finite.
    slowness : float
        How many times as long a gradient takes here as it could: more than 1 where a fault says so.
    """

    def __init__(self, plan: Plan, world: Communicator, batches: Batches, buffer: Array, recorder: Recorder) -> None:
        self._world = world
        self.rank = world.rank
        self.stamps = self._stamps = world.stamps
        self.now = self._now = world.clock.now
        self.batches = batches
        self.recorder = recorder
        self.consumed = 0
        self.count = 0
        self.last_rows = 0
        self.batch_size = plan.batch_size
        self._rows = plan.rows
        self.buffer = self._buffer = buffer
        self._sums = buffer[:-TAIL]
        self._tail = buffer[-TAIL:]
        self._loss_grad = plan.model.loss_grad
        self._parts = parts_of(plan.model)
        self._part_rows = plan.part_rows
        self._at = plan.model.at if isinstance(plan.model, Stochastic) else None
        self._seed = plan.seed
        self.skips = plan.skips_nonfinite
        self._left_out = self._in_a_row = 0
        self._tell: WeakMethod[Callable[[str], None]] | None = None
        self._total: Array | None = None
        self.slowness = 1.0

    def begin(self, tell: WeakMethod[Callable[[str], None]]) -> None:
        """Begin to count what is left out, and to tell of it, in words."""
        self._left_out = self._in_a_row = 0
        self._tell = tell

    def compute(self, w: Array, ready: Callable[[Array], object] | None = None) -> Array:
        """Return the (P + 3,) gradient sum over this rank's part of the batch, with its tail.

        ``ready`` is called with each layer's part as soon as it is final, from the last layer to the first, then with the tail.
        """
        if self._at is not None:
            self._at(self._seed, self._stamps.step, self._world.rank)
        if self._part_rows is not None and self.count > self._part_rows:
            return self._accumulate(w, self._part_rows, ready)
        begin = self._now()
        x, y, weights, rows = self.batches.take(self.consumed, self.count)
        told = None if ready is None else self._telling(ready)
        if rows:
            loss, weight = self._loss_grad(w, x, y, weights, self._sums, told)
            tail = self._tail
            if (self.skips or not isfinite(loss)) and self.is_left_out(loss, self._sums, y):
                tail[0], tail[1], tail[2] = 0, 0, rows
                if told is None:  # else parts are on their way: all ranks see that their sums are not finite
                    self._sums[:] = 0
            else:
                tail[0], tail[1], tail[2] = loss, weight, rows
        else:
            self._buffer[:] = 0
            if told is not None:
                for part in reversed(self._parts):
                    told(part)
        if ready is not None:
            ready(self._tail)
        self.finish(begin, rows)
        return self._buffer

    def whole(self, g: SparseGradient) -> Array:
        """Return a sparse gradient with its tail as a whole one, (P + 3,), in this rank's memory for gradients."""
        self._buffer[:] = 0
        self._sums[g.entries] = g.values[:-TAIL]
        self._tail[:] = g.values[-TAIL:]
        return self._buffer

    def _accumulate(self, w: Array, part: int, ready: Callable[[Array], object] | None) -> Array:
        """Return the same of a batch that may be larger than the memory: part after part, each read once while it is in the cache.

        Sums are float64, so that many parts lose nothing.
        """
        begin, rows, tail = self._now(), 0, np.zeros(TAIL)
        if self._total is None:
            self._total = namespace(self._sums).zeros(len(self._sums))
        total = self._total
        total[:] = 0
        for start in range(self.consumed, self.consumed + self.count, part):
            x, y, weights, taken = self.batches.take(start, min(part, self.consumed + self.count - start))
            if taken:
                loss, weight = self._loss_grad(w, x, y, weights, self._sums, None)
                rows += taken
                if (self.skips or not isfinite(loss)) and self.is_left_out(loss, self._sums, y):
                    tail[2] += taken
                    continue
                total += self._sums
                tail += float(loss), float(weight), taken
        self._sums[:] = total
        self._tail[0], self._tail[1], self._tail[2] = tail.tolist()
        if ready is not None:
            ready(self._buffer)
        self.finish(begin, rows)
        return self._buffer

    def _telling(self, ready: Callable[[Array], object]) -> Callable[[slice], object]:
        return lambda own: ready(self._sums[own])

    @property
    def following(self) -> tuple[int, int]:
        """Where the next batch begins, and how many rows it has over all ranks."""
        after = self.consumed + self.count
        after = after if after < self._rows else 0
        return after, min(self.batch_size, self._rows - after)

    def check(self, loss: float, y: Array) -> None:
        """Raise NonFinite for a loss that is no number."""
        if not isfinite(loss):
            raise self._non_finite(loss, y)

    def is_left_out(self, loss: float, sums: Array, y: Array) -> bool:
        """Whether rows do not count, for their loss or gradient is not finite.

        Raises
        ------
        NonFinite
            Where the run ends by that: unless it skips such rows, and too many in a row.
        """
        if isfinite(loss) and is_finite(sums):
            self._in_a_row = 0
            return False
        self._left_out, self._in_a_row = self._left_out + 1, self._in_a_row + 1
        if not self.skips or self._in_a_row > _MOST_IN_A_ROW:
            raise self._non_finite(
                loss, y
            )  # under no name: by its traceback it would hold itself, and the rank's memory
        error = self._non_finite(loss, y)
        tell = self._tell() if self._tell is not None and self._left_out in _TOLD else None
        if tell is not None:
            what = "the gradient is not finite" if isfinite(loss) else error.what
            tell(f"rank {self.rank}: {what} {error.where}: left out, {self._left_out} so far")
        return True

    def finish(self, begin: float, rows: int) -> None:
        """Note that a gradient over ``rows`` rows was begun at ``begin`` and is done."""
        self.last_rows = rows
        if self.slowness > 1:
            pause(self._world, (self._now() - begin) * (self.slowness - 1))
        seconds = self._now() - begin
        self._stamps.compute_seconds = seconds  # goes out with this rank's next message
        self.recorder.compute += seconds

    def _non_finite(self, loss: float, y: Array) -> NonFinite:
        shards = sorted({self.batches.locate(self.consumed, self.count, row)[0] for row in (0, int(y.shape[0]) - 1)})
        return self.non_finite(loss, shards, self._world.step)

    def non_finite(self, loss: float, shards: Sequence[int], step: int) -> NonFinite:
        """Return the error of a loss over rows of these shards."""
        where = f"shard {shards[0]}" if len(shards) == 1 else f"shards {shards[0]} to {shards[-1]}"
        return NonFinite(
            self._world.rank,
            step,
            f"the loss is {loss}",
            f"over {where}",
            "Most often the learning rate is too large or the columns of X differ by orders of magnitude: divide the learning "
            "rate by 10, or scale X (sklearn.preprocessing.StandardScaler)",
        )
