"""Gradient noise at a server: it sees the gradients of all workers of a clock, and what they add up to; see `runtime.gradient_noise`.

A server has a slice of each. Squared norms of slices add up to those of whole vectors, and so do the estimates, which are linear in
them: each server writes its part into its history.
"""

from __future__ import annotations

import math
from typing import final

import numpy as np

from scaleml.arrays import Array
from scaleml.models.flat_model import Sparse
from scaleml.runtime.measured_steps import has_few_columns, measuring_interval, next_measured
from scaleml.runtime.parameter_server.message_format import are_applied_together
from scaleml.runtime.parameter_server.worker_connections import WorkerConnections
from scaleml.runtime.plan import Plan
from scaleml.strategies.base import ServerStrategy
from scaleml.strategies.context import Clients, Push, ServerContext, SparseGradient, Updater
from scaleml.telemetry.recorder import Recorder


@final
class ServerNoise:
    """Measures the noise of the gradients that come to a server.

    Parameters
    ----------
    plan : Plan
        The run.
    slice_size : int
        Parameters of this server.
    recorder : Recorder
        Where estimates are noted.

    Attributes
    ----------
    due : float
        The next update to measure; infinite where gradients are not applied together, a codec has lost some of them, or they lack
        a penalty.
    """

    def __init__(self, plan: Plan, slice_size: int, recorder: Recorder) -> None:
        measures = are_applied_together(plan) and plan.serving.compression is None and plan.layout.workers > 1
        lacks_penalty = plan.sparse and isinstance(plan.model, Sparse) and bool(plan.model.l2)
        self.due: float = 0 if measures and not lacks_penalty else math.inf
        self._recorder = recorder
        self._rows = plan.rows
        self._part = slice_size / plan.model.size
        self._size = plan.model.size
        self._batch = plan.batch_size / plan.layout.workers
        self._few_columns = has_few_columns(plan.model)
        self._begin()

    def serve(
        self,
        strategy: ServerStrategy,
        w: Array,
        state: dict[str, Array],
        ctx: ServerContext,
        clients: WorkerConnections,
    ) -> None:
        """Have the strategy take in a message, and look on: at each push of the clock that is due, and at their mean."""
        version = clients.version
        strategy.serve(w, state, _Watched(ctx, clients, self))
        if clients.version > version:
            interval = measuring_interval(self._size, self._batch, self._few_columns, version, is_summed=True)
            self.due = next_measured(version, interval)
            self._begin()

    def _begin(self) -> None:
        self._squares = self._weight = 0.0
        self._pushes = 0

    def pushed(self, push: Push) -> None:
        """Take in a worker's gradient, as it comes."""
        self._squares += push.weight * _squares(push)
        self._weight += push.weight
        self._pushes += 1

    def summed(self, mean: Push, rows: float) -> None:
        """Take in the mean of all pushes, of so many rows, before it is applied."""
        if self._pushes < 2:
            return
        squares, between = _squares(mean), self._pushes - 1
        trace = rows / self._weight * (self._squares - self._weight * squares)
        self._recorder.noisy(trace, between * squares - trace * (1 / rows - 1 / self._rows), between * self._part)


def _squares(push: Push) -> float:
    values = push.gradient.values if isinstance(push.gradient, SparseGradient) else push.gradient
    return float(np.dot(values, values))


@final
class _Watched:
    """A server's context, and its clients, in the clock that is measured."""

    def __init__(self, ctx: ServerContext, clients: WorkerConnections, noise: ServerNoise) -> None:
        self._ctx, self._clients, self._noise = ctx, clients, noise

    @property
    def clients(self) -> Clients:
        return self

    @property
    def optimizer(self) -> Updater:
        return self._ctx.optimizer

    def receive(self) -> Push | None:
        push = self._clients.receive()
        if push is not None:
            self._noise.pushed(push)
        return push

    def mean_of_clock(self) -> Push | None:
        mean = self._clients.mean_of_clock()
        if mean is not None:
            self._noise.summed(mean, self._clients.coming)
        return mean

    def applied(self, push: Push) -> None:
        self._clients.applied(push)

    def answer(self, w: Array, ahead: float) -> None:
        self._clients.answer(w, ahead)
