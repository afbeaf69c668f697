"""Gradients on a GPU: queued without a look at them, or of parameters that lie in the processor's memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, final

import numpy as np

from scaleml.arrays import Array
from scaleml.devices import Device, fill
from scaleml.models.flat_model import Ready, Stochastic, parts_of
from scaleml.models.on_devices import Skipping
from scaleml.runtime.gradient import TAIL, Gradient
from scaleml.runtime.plan import Plan
from scaleml.runtime.step_ring import StepRing


@final
class _BatchSums:
    """The gradient sum and the tail of a rank's part of the batch, written into a GPU's memory.

    Attributes
    ----------
    is_sure : bool
        Whether the rows of the last batch weigh something.
    """

    def __init__(self, plan: Plan, base: Gradient, device: Device) -> None:
        self.is_sure = False
        self._base = base
        self._xp = device.xp
        self._dtype = plan.model.dtype
        self._loss_grad = plan.model.loss_grad
        self._part_rows = plan.part_rows
        self._at = plan.model.at if isinstance(plan.model, Stochastic) else None
        self._seed = plan.seed
        self._total: Array | None = None
        self._counts: dict[int, Array] = {}
        self._y = np.empty(0)
        self._may_skip = isinstance(plan.model, Skipping) and plan.model.may_skip_rows

    def write(self, w: Array, sums: Array, tail: Array, told: Ready | None = None) -> int:
        """Write both; return how many rows there were: of none, nothing is written."""
        base, part = self._base, self._part_rows
        if self._at is not None:
            self._at(self._seed, base.stamps.step, base.rank)
        if part is not None and base.count > part:
            return self._accumulate(w, sums, tail, part)
        x, self._y, weights, rows = base.batches.take(base.consumed, base.count)
        if rows:
            loss, weight = self._loss_grad(w, x, self._y, weights, sums, told)
            self._note(tail, loss, weight, rows)
        self.is_sure = rows > 0 and self._are_sure(weights)
        return rows

    def _accumulate(self, w: Array, sums: Array, tail: Array, part: int) -> int:
        """Do the same part after part, as `Gradient` does; sums are float64."""
        base, rows, sure = self._base, 0, True
        if self._total is None:
            self._total = self._xp.zeros(len(sums) + TAIL)
        self._total[:] = 0
        for start in range(base.consumed, base.consumed + base.count, part):
            x, self._y, weights, taken = base.batches.take(start, min(part, base.consumed + base.count - start))
            if taken:
                loss, weight = self._loss_grad(w, x, self._y, weights, sums, None)
                self._note(tail, loss, weight, taken)
                self._total[:-TAIL] += sums
                self._total[-TAIL:] += tail
                sure = sure and self._are_sure(weights)
                rows += taken
        if rows:
            sums[:], tail[:] = self._total[:-TAIL], self._total[-TAIL:]
        self.is_sure = rows > 0 and sure
        return rows

    def _are_sure(self, weights: Array | None) -> bool:
        """Whether the rows of the batch that was taken last surely weigh something."""
        return (weights is None and not self._may_skip) or self._base.batches.weights_are_positive

    def _note(self, tail: Array, loss: Any, weight: Any, rows: int) -> None:
        tail[:1] = loss
        if type(weight) is float and weight == rows:  # no array, which would have to be looked at
            tail[1:] = self._count(rows)
        else:
            tail[1], tail[2] = weight, rows

    def _count(self, rows: int) -> Array:
        """Return weight and number of so many rows: kept, for batches are of few sizes."""
        found = self._counts.get(rows)
        if found is None:
            found = self._counts[rows] = self._xp.full(2, rows, self._dtype)
        return found

    def check(self, loss: float) -> None:
        """Raise NonFinite for a loss that is no number."""
        self._base.check(loss, self._y)


@final
class QueuedGradient:
    """What strategies call as ``ctx.gradient`` where all of a rank's vectors lie on a GPU: nothing waits for what it queues.

    Parameters
    ----------
    plan : Plan
        The run.
    base : Gradient
        Where the rank is, whose buffer is written, where time is noted.
    ring : StepRing
        Where this rank's losses go.
    device : Device
    waits : bool
        Whether what comes next waits for the gradient, so that its time is seen here.
    """

    def __init__(self, plan: Plan, base: Gradient, ring: StepRing, device: Device, waits: bool) -> None:
        self._base = base
        self._batch = _BatchSums(plan, base, device)
        self._ring = ring
        self._device = device
        self._waits = waits
        self._parts = parts_of(plan.model)
        self._in_parts = plan.part_rows is not None
        self._buffer = buffer = base.buffer
        self._sums, self._tail = buffer[:-TAIL], buffer[-TAIL:]

    @property
    def is_sure(self) -> bool:
        """Whether the last gradient is of rows that weigh something."""
        return self._batch.is_sure

    def compute(self, w: Array, ready: Callable[[Array], object] | None = None) -> Array:
        """Return the (P + 3,) gradient sum over this rank's part of the batch, with its tail; see `Gradient.compute`."""
        base, batch = self._base, self._batch
        begin = base.now()
        told = None if ready is None or self._in_parts else lambda own: ready(self._sums[own])
        rows = batch.write(w, self._sums, self._tail, told)
        if not rows:
            self._buffer[:] = 0
            if told is not None:
                for part in reversed(self._parts):
                    told(part)
        elif batch.is_sure:
            self._ring.own(self._tail[:1])
        else:
            batch.check(float(self._tail[0]))
        if ready is not None:
            ready(self._buffer if told is None else self._tail)
        if self._waits or base.slowness > 1:
            self._device.synchronize()
        base.finish(begin, rows)
        return self._buffer


@final
class FetchedGradient:
    """The same where the parameters lie in the processor's memory, at servers or shared by all ranks: only gradients are the GPU's.

    Parameters are brought there before each gradient, and what comes of them back: what travels, or is written by others, is here.

    Parameters
    ----------
    plan : Plan
        The run.
    base : Gradient
        Where the rank is, and whose buffer, of the processor's memory, is written.
    device : Device
    """

    def __init__(self, plan: Plan, base: Gradient, device: Device) -> None:
        self._base: Final = base
        self._batch = _BatchSums(plan, base, device)
        self._buffer = base.buffer
        device.pin(self._buffer)
        self._w = device.xp.empty(plan.model.size, plan.model.dtype)
        self._g = device.xp.empty(plan.model.size + TAIL, plan.model.dtype)
        self._sums, self._tail = self._g[:-TAIL], self._g[-TAIL:]

    def compute(self, w: Array) -> Array:
        """Return the (P + 3,) gradient sum over this rank's part of the batch, with its tail; see `Gradient.compute`."""
        base, buffer = self._base, self._buffer
        begin = base.now()
        fill(self._w, w)
        rows = self._batch.write(self._w, self._sums, self._tail)
        if rows:
            self._g.get(out=buffer)
            self._batch.check(float(buffer[-TAIL]))
        else:
            buffer[:] = 0
        base.finish(begin, rows)
        return buffer
