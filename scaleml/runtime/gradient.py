"""What a strategy may ask of its rank: the gradient of its part of the batch, and the update from it."""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from time import perf_counter as clock
from time import sleep
from typing import Any

import numpy as np

from scaleml.optim import clip
from scaleml.runtime.errors import NonFinite
from scaleml.runtime.plan import Plan
from scaleml.strategies.base import TAIL
from scaleml.telemetry.recorder import Recorder

__all__ = ["TAIL", "Gradients", "Update"]


class Gradients:
    """Computes gradients at the rank's place in the epoch.

    Parameters
    ----------
    plan : Plan
        The run.
    group : Group
        The ranks; stamps messages with the step and the seconds of computing.
    batches : Batches
        This rank's data.
    buffer : (P + 3,) array
        Where gradients are written: memory that the group can send from without copying.
    recorder : Recorder
        Where time and losses are noted.

    Attributes
    ----------
    slowness : float
        How many times as long a gradient takes here as it could: more than 1 where a fault says so.
    """

    def __init__(self, plan: Plan, group: Any, batches: Any, buffer: Any, recorder: Recorder) -> None:
        self._group = group
        self.batches = batches
        self.recorder = recorder
        self.consumed = 0
        self.count = 0
        self.last_rows = 0
        self.batch_size = plan.batch_size
        self._rows = plan.rows
        self._buffer = buffer
        self._sums = buffer[:-TAIL]
        self._tail = buffer[-TAIL:]
        self._loss_grad = plan.network.loss_grad
        self._blocks = plan.network.blocks
        self.slowness = 1.0

    def gradient(self, w: Any, ready: Callable[[Any], object] | None = None) -> Any:
        """Return the (P + 3,) gradient sum over this rank's part of the batch, with its tail.

        ``ready`` is called with each block's part as soon as it is final, from the last block to the first, then with the tail.
        """
        begin = clock()
        x, y, weights, rows = self.batches.take(self.consumed, self.count)
        told = None if ready is None else self._telling(ready)
        if rows:
            loss, weight = self._loss_grad(w, x, y, weights, self._sums, told)
            if not isfinite(loss):
                self.check(loss, y)
            tail = self._tail
            tail[0], tail[1], tail[2] = loss, weight, rows
        else:
            self._buffer[:] = 0
            if told is not None:
                for block in reversed(self._blocks):
                    told(slice(block.start, block.stop))
        if ready is not None:
            ready(self._tail)
        self.finish(begin, rows)
        return self._buffer

    def _telling(self, ready: Callable[[Any], object]) -> Callable[[slice], object]:
        return lambda own: ready(self._sums[own])

    @property
    def following(self) -> tuple[int, int]:
        """Where the next batch begins, and how many rows it has over all ranks."""
        after = self.consumed + self.count
        after = after if after < self._rows else 0
        return after, min(self.batch_size, self._rows - after)

    def check(self, loss: float, y: Any) -> None:
        """Raise NonFinite for a loss that is no number."""
        if not isfinite(loss):
            raise self._non_finite(loss, y)

    def finish(self, begin: float, rows: int) -> None:
        """Note that a gradient over ``rows`` rows was begun at ``begin`` and is done."""
        self.last_rows = rows
        if self.slowness > 1:
            sleep((clock() - begin) * (self.slowness - 1))
        seconds = clock() - begin
        self._group.compute_seconds = seconds  # goes out with this rank's next message
        self.recorder.compute += seconds

    def _non_finite(self, loss: float, y: Any) -> NonFinite:
        shards = sorted({self.batches.locate(self.consumed, self.count, row)[0] for row in (0, int(y.shape[0]) - 1)})
        where = f"shard {shards[0]}" if len(shards) == 1 else f"shards {shards[0]} to {shards[-1]}"
        return NonFinite(
            self._group.rank,
            self._group.step,
            f"the loss is {loss}",
            f"over {where}",
            "Most often the learning rate is too large or the columns of X differ by orders of magnitude: divide the learning "
            "rate by 10, or scale X (sklearn.preprocessing.StandardScaler)",
        )


class Update:
    """The optimizer as strategies see it: from a gradient sum to new parameters, in place."""

    def __init__(self, plan: Plan, group: Any, recorder: Recorder) -> None:
        self.optimizer = plan.optimizer
        self._group = group
        self.t = 0 if plan.start is None else plan.start.updates
        self.rows = 0.0 if plan.start is None else plan.start.rows
        """Rows of all ranks that have gone into updates: those counted here, times the ranks where they are not summed."""
        self.epoch_loss = self.epoch_weight = 0.0
        self._objective_grad = plan.network.objective_grad
        self._steps = plan.steps
        self._by_rows = plan.by_rows
        self._parts = 1 if plan.strategy.replicated else plan.layout.workers
        # Where the gradient is of a rank's part only, but the update of the whole batch, steps are the batch's.
        self._share = self._parts // plan.strategy.updates_a_batch(plan.layout.workers)
        self._penalise = not plan.sparse  # else the gradient has it already, or a server adds it
        self._recorder = recorder
        self._buffer: Any = None
        self._mean: Any = None

    def apply(self, w: Any, g: Any, state: dict[str, Any], scale: float = 1.0) -> None:
        """Update ``w`` (P,) in place from the gradient sum ``g``, (P + 3,) or sparse, which is used up."""
        begin = clock()
        where = None
        if not isinstance(g, np.ndarray):
            g, where = g.values, g.entries
        mean = self.mean(w, g)
        if mean is not None:
            if self.optimizer.clip_norm is not None:
                clip(mean, self.optimizer.clip_norm)
            self.t = t = self.t + 1
            rate = self.optimizer.rate(t, state, scale)
            self.optimizer.apply(w, mean, state, t, where, rate)
            if self._steps is not None and self._steps.l1:
                self._steps.shrink(w, self._seen, rate, state)
        self._recorder.apply += clock() - begin

    def mean(self, w: Any, g: Any) -> Any:
        """Return the gradient of the objective at ``w`` in place of the sum: the mean, with penalty.

        None when the rows of the batch weigh nothing.
        """
        if g is not self._buffer:  # the same buffer each step: its views are made once
            self._buffer, self._mean, self._tail = g, g[:-TAIL], g[-TAIL:]
        loss, weight, rows = self._tail.tolist()
        self._recorder.loss_sum += loss
        self._recorder.weight += weight
        if weight == 0:
            return None
        if self._by_rows or weight == rows:
            self.epoch_loss += loss
            self.epoch_weight += weight
        else:  # an epoch's loss is the mean of its batches' losses, which count by their rows, as in scikit-learn
            self.epoch_loss += loss / weight * rows
            self.epoch_weight += rows
        mean = self._mean
        scale = 1.0 / (rows if self._by_rows else weight)
        if self._penalise:
            squares = self._objective_grad(w, mean, scale)
        else:
            mean *= scale
            squares = mean.dot(mean)
        if not isfinite(squares):
            self._refuse(mean)
        self._seen = self.rows
        self.rows += rows * self._parts
        if self._steps is not None:
            self._steps.apply(mean, self._seen, rows * self._share)
        return mean

    def _refuse(self, mean: Any) -> None:
        # The squares of finite float32 numbers may overflow: only a value that is itself not finite counts.
        if not bool((abs(mean) < np.inf).all()):
            raise NonFinite(
                self._group.rank,
                self._group.step,
                "the gradient is not finite",
                "over all ranks' shards of this batch",
                "Divide the learning rate by 10, scale X, or set clip_norm",
            )

    def end_epoch(self, state: dict[str, Any]) -> None:
        """Tell the schedule the epoch's mean loss."""
        loss, weight = self.epoch_sums()
        if weight:
            self.optimizer.observe_epoch(loss / weight, state)

    def epoch_sums(self) -> tuple[float, float]:
        """Return the losses and the weights summed since the last call."""
        sums = self.epoch_loss, self.epoch_weight
        self.epoch_loss = self.epoch_weight = 0.0
        return sums
