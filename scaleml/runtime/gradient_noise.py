r"""Gradient noise: in some steps, estimates of how much of a batch's gradient is noise; see `telemetry.noise_scale`.

Rows of data have gradients with mean ``G`` and covariance ``S``. Rank ``r`` has the mean ``g_r`` over ``b_r`` of the batch's ``B``
rows, and all have the mean ``g`` of the batch. ``E|g_r|^2 = |G|^2 + tr(S) / b_r`` and ``E|g|^2 = |G|^2 + tr(S) / B``, so from both

::

    tr(S) = (|g_r|^2 - |g|^2) / (1 / b_r - 1 / B)
    |G|^2 = |g|^2 - tr(S) (1 / B - 1 / N)

is without bias: of each rank by itself, for which it needs nothing of the others but ``g``, which it has. (``N`` are all rows: of a batch
of all rows, ``g`` is ``G``. Batches are drawn without replacement; ``tr(S)`` then is that of the sample covariance, with ``N - 1``.) Ranks
count by ``v_r = 1 - b_r / B``; the sum over the ranks then is the mean square between groups, the best estimate from ``n - 1`` degrees of
freedom: ``sum of v_r tr(S) = sum of b_r |g_r - g|^2``. No rank sends anything for it: each writes ``v_r tr(S)``, ``v_r |G|^2`` and ``v_r``
into its history, where they are added.

*Weights.* ``g_r`` is the sum over the rows divided by their weight ``d_r``; with the whole weight ``D`` it is
``v_r = 1 - d_r / D``, ``v_r tr(S) = B / D (d_r |g_r|^2 - d_r |g|^2)``: ``S`` is the covariance of a row of data as it counts in the mean,
so the noise scale is in rows of data, whatever they weigh.
*Penalty.* It is the same for all rows: ``S`` is without, ``G`` with it.
*What is not exact.* Rows of one shard that are more alike than others (data in order, in unlike partitions) count as noise.

**One gradient after the other.** Where no sum of all ranks' gradients is to be had (one rank, asynchronous or local steps,
lossy codecs), rank ``r`` takes two of its own, ``a`` and ``b``, of steps that follow each other in an epoch:

::

    tr(S) = |a - b|^2 / (1 / b_a + 1 / b_b)
    |G|^2 = a . b + tr(S) / N

That would be as good, were ``b`` taken at the parameters of ``a``. But the step in between went down along ``a``, noise included: ``a . b``
is smaller by ``rate * a' H a``, with H the Hessian, and comes out too small, the noise scale too large. It is marked as biased.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, final

import numpy as np

from scaleml.arrays import Array
from scaleml.comm.communicator import Communicator
from scaleml.compression import CodecContext
from scaleml.models.flat_model import Penalised, Sparse
from scaleml.runtime.measured_steps import has_few_columns, measuring_interval, next_measured
from scaleml.runtime.parameter_server.message_format import are_applied_together
from scaleml.runtime.plan import Plan
from scaleml.runtime.queued_step import AnyStep
from scaleml.strategies import Strategy
from scaleml.strategies.context import (
    TAIL,
    Context,
    Neighbours,
    ParameterServers,
    SharedVector,
    SparseGradient,
    Updater,
)
from scaleml.telemetry.recorder import Recorder


@final
class GradientNoise:
    """Measures the noise of a training rank's gradients.

    Parameters
    ----------
    plan : Plan
        The run.
    group : Communicator
        The ranks that train.
    optimizer : OptimizerStep or QueuedStep
        Whose ``squares`` are the norm of the gradient that it has applied.
    recorder : Recorder
        Where estimates are noted.

    Attributes
    ----------
    due : float
        The next step to measure; infinite where there is nothing to be had.
    """

    def __init__(self, plan: Plan, group: Communicator, optimizer: AnyStep, recorder: Recorder) -> None:
        self.optimizer = optimizer
        self.recorder = recorder
        self.model = plan.model
        self.group = group
        self.by_rows = plan.by_rows
        self.rows = plan.rows
        self.due: float = math.inf if _why_not(plan) else 0
        self.objective_grad = plan.model.objective_grad if isinstance(plan.model, Penalised) else None
        self._few_columns = has_few_columns(plan.model)
        self._last: _Measured | None = None

    def begin(self, step: int, strategy: Strategy, batch_size: int) -> None:
        """Go on from step `step`, after anything may have happened: the same steps are measured, whatever came before."""
        self._last = None
        if self.due < math.inf:
            is_summed = self.group.size > 1 and strategy.sums_gradients(step)
            self.due = next_measured(step - 1, self._interval(step, batch_size, is_summed))

    def take_step(self, strategy: Strategy, w: Array, state: dict[str, Array], ctx: Context, batch_size: int) -> None:
        """Have the strategy take its step, and look on."""
        step = ctx.step
        is_summed = self.group.size > 1 and strategy.sums_gradients(step)
        if is_summed:
            self._last = None
            strategy.step(w, state, _Summed(ctx, self, 1 if strategy.replicated else self.group.size))
        else:
            watch = _Single(ctx, self)
            strategy.step(w, state, watch)
            self._compare(step, watch.seen, ctx.ends_epoch)
            if self._last is not None:
                self.due = step + 1
                return
        self.due = next_measured(step, self._interval(step, batch_size, is_summed))

    def _interval(self, step: int, batch_size: int, is_summed: bool) -> int:
        rows, touches = batch_size / self.group.size, self.optimizer.touches
        return measuring_interval(self.model.size, rows, self._few_columns, step, is_summed, touches)

    def divisor(self, weight: float, rows: float) -> float:
        """Return what a sum of gradients is divided by."""
        return rows if self.by_rows else weight

    def _compare(self, step: int, seen: _Measured | None, ends_epoch: bool) -> None:
        """Make an estimate of the last gradient and this one, if they follow each other; keep this one, if there was none."""
        last, self._last = self._last, None
        if seen is None:
            return
        if last is None or last.step != step - 1:
            self._last = None if ends_epoch else seen._replace(step=step)
            return
        apart = last.distance(seen)
        trace = apart / (1 / last.rows + 1 / seen.rows)
        product = (last.squares + seen.squares - apart) / 2
        self.recorder.noisy(trace, product + trace / self.rows, 1.0, biased=True)


def _why_not(plan: Plan) -> str:
    """Return why a training rank does not measure, in words."""
    if not plan.layout.servers:
        return ""
    if plan.sparse and isinstance(plan.model, Sparse) and plan.model.l2:
        return "servers add the penalty of parameters that no worker has"
    if are_applied_together(plan) and plan.serving.compression is None:
        return "the servers see all gradients of a clock, and measure"
    return ""


class _Measured(NamedTuple):
    """A mean gradient, with its penalty: a copy."""

    mean: Array
    keys: Array | None
    squares: float
    rows: float
    step: int = -1

    def distance(self, other: _Measured) -> float:
        """Return the squared distance of two; this one is used up."""
        if self.keys is None or other.keys is None:
            apart = self.mean
            apart -= other.mean
            return float(apart.dot(apart))
        _, mine, others = np.intersect1d(self.keys, other.keys, assume_unique=True, return_indices=True)
        shared = float(self.mean[mine].dot(other.mean[others]))
        return self.squares + other.squares - 2 * shared


class _Watched:
    """A context that passes everything on: the base of those that look at gradients."""

    def __init__(self, ctx: Context, noise: GradientNoise) -> None:
        self._ctx, self._noise = ctx, noise

    @property
    def group(self) -> Communicator:
        return self._ctx.group

    @property
    def servers(self) -> ParameterServers:
        return self._ctx.servers

    @property
    def shared(self) -> SharedVector:
        return self._ctx.shared

    @property
    def neighbours(self) -> Neighbours:
        return self._ctx.neighbours

    @property
    def step(self) -> int:
        return self._ctx.step

    @property
    def is_last_step(self) -> bool:
        return self._ctx.is_last_step

    @property
    def ends_epoch(self) -> bool:
        return self._ctx.ends_epoch

    @property
    def codec_context(self) -> CodecContext:
        return self._ctx.codec_context


@final
class _Summed(_Watched):
    """The context of a step that sums all ranks' gradients and applies the sum; it is its own optimizer, too."""

    def __init__(self, ctx: Context, noise: GradientNoise, parts: int) -> None:
        super().__init__(ctx, noise)
        self._parts = parts
        self._squares = self._divisor = 0.0

    @property
    def optimizer(self) -> Updater:
        return self

    def gradient(self, w: Array, ready: Callable[[Array], object] | None = None) -> Array:
        """Return the gradient of the rank's part; what is ready may be summed at once, and is looked at before."""
        if ready is None:
            g = self._ctx.gradient(w)
            self._look(g[:-TAIL])
            self._look_at_tail(g[-TAIL:])
            return g
        told = ready
        left = len(w)

        def look(part: Array) -> None:
            nonlocal left
            if left:
                left -= len(part)
                self._look(part)
            else:
                self._look_at_tail(part)
            told(part)

        return self._ctx.gradient(w, look)

    def touched_gradient(self, w: Array) -> Array | SparseGradient:
        g = self._ctx.touched_gradient(w)
        values = g.values if isinstance(g, SparseGradient) else g
        self._look(values[:-TAIL])
        self._look_at_tail(values[-TAIL:])
        return g

    def _look(self, part: Array) -> None:
        self._squares += float(part.dot(part))

    def _look_at_tail(self, tail: Array) -> None:
        _, weight, rows = tail.tolist()
        self._divisor = self._noise.divisor(weight, rows)

    def apply(self, w: Array, g: Array | SparseGradient, state: dict[str, Array], scale: float = 1.0) -> None:
        """Update ``w``, and note the estimate; see the module."""
        noise, parts, own = self._noise, self._parts, self._divisor
        values = g.values if isinstance(g, SparseGradient) else g
        total = values[:-TAIL]
        _, weight, rows = values[-TAIL:].tolist()
        divisor = noise.divisor(weight, rows)
        squares = float(total.dot(total)) / divisor**2 if divisor > 0 else math.nan
        decay, of_penalty = noise.optimizer.decay, 0.0
        if decay is not None and divisor > 0 and isinstance(g, SparseGradient):
            of_penalty = decay.squares(w, total / divisor, g.entries)
        self._ctx.optimizer.apply(w, g, state, scale)
        if not (own > 0 and divisor > 0):
            return
        share = 1 - own / (divisor * parts)
        if share > 0:
            trace = rows / divisor * (self._squares / own - own * squares)
            applied = float(noise.optimizer.squares) + of_penalty
            signal = share * applied - trace * (1 / (rows * parts) - 1 / noise.rows)
            noise.recorder.noisy(trace, signal, share)


@final
class _Single(_Watched):
    """The context of a step in which a rank's own gradient is kept, before anybody else can change it."""

    seen: _Measured | None = None

    @property
    def optimizer(self) -> Updater:
        return self._ctx.optimizer

    def gradient(self, w: Array, ready: Callable[[Array], object] | None = None) -> Array:
        g = self._ctx.gradient(w, ready)
        if ready is None or self.group.size == 1:  # else it may be a sum already
            self._keep(w, g[:-TAIL], g[-TAIL:], None)
        return g

    def touched_gradient(self, w: Array) -> Array | SparseGradient:
        g = self._ctx.touched_gradient(w)
        decay = self._noise.optimizer.decay
        if not isinstance(g, SparseGradient):
            self._keep(w, g[:-TAIL], g[-TAIL:], None)
        elif decay is None:
            self._keep(w, g.values[:-TAIL], g.values[-TAIL:], g.entries)
        else:  # with its penalty it is a whole vector
            sums = np.zeros(len(w), w.dtype)
            sums[g.entries] = g.values[:-TAIL]
            self._keep(decay.values(w), sums, g.values[-TAIL:], None)
        return g

    def _keep(self, w: Array, sums: Array, tail: Array, keys: Array | None) -> None:
        _, weight, rows = tail.tolist()
        noise = self._noise
        divisor = noise.divisor(weight, rows)
        if not divisor > 0:
            return
        mean = sums * (1.0 / divisor)
        grad = noise.objective_grad if keys is None else None
        squares = mean.dot(mean) if grad is None else grad(w, mean)
        self.seen = _Measured(mean, keys, float(squares), rows)
