"""The optimizer step of a server: gradients come as means already, and only a slice of the parameters is here."""

from __future__ import annotations

import math
from typing import final

import numpy as np

from scaleml.arrays import Array
from scaleml.clock import Clock
from scaleml.comm.communicator import Communicator
from scaleml.models.flat_model import Sparse
from scaleml.optim import Optimizer
from scaleml.runtime.parameter_groups import group_segments
from scaleml.runtime.parameter_server.message_format import are_applied_together
from scaleml.runtime.plan import Plan
from scaleml.runtime.train_state import TrainState
from scaleml.runtime.weight_decay import WeightDecay
from scaleml.strategies.context import SparseGradient
from scaleml.telemetry.recorder import Recorder


@final
class DenseServerOptimizer:
    """Updates a slice of the parameters as a whole.

    Parameters
    ----------
    state : TrainState
        Of the slice: whose optimizer is applied, and where updates are counted.
    servers : Communicator or None
        All servers, where together they are to keep to the optimizer's `clip_norm`: each has a slice of the gradient only.
    """

    def __init__(
        self, plan: Plan, state: TrainState, servers: Communicator | None, recorder: Recorder, clock: Clock
    ) -> None:
        self.state = state
        self.slowness = 1.0
        self._clock = clock
        self._recorder = recorder
        self._norm = _Norm(plan, servers)
        self._segments = group_segments(plan, slice(state.start, state.stop))

    def apply(self, w: Array, g: Array | SparseGradient, state: dict[str, Array], scale: float = 1.0) -> None:
        """Update the slice ``w`` in place from the mean gradient ``g`` of its length, the learning rate times ``scale``."""
        assert isinstance(g, np.ndarray)
        self._norm.limit(g)
        begin = self._clock.now()
        own, optimizer = self.state, self.state.optimizer
        assert optimizer is not None
        own.updates = t = own.updates + 1
        optimizer.apply(w, g, state, t, None, optimizer.rate(t, state, scale), self._segments)
        self._recorder.apply += _applied(self._clock, begin, self.slowness)

    def values(self, w: Array, keys: Array | None) -> Array:
        """Return the parameters that are asked for: here always all."""
        return w

    def result(self, w: Array, state: dict[str, Array]) -> Array:
        """Return what the optimizer gives out."""
        return optimizer_of(self.state).result(w, state, self.state.updates)


@final
class SparseServerOptimizer:
    """Updates the keys that a gradient has; the L2 penalty's decay of all coefficients is one factor of them all.

    Parameters
    ----------
    state : TrainState
        Of the slice.
    """

    def __init__(
        self, plan: Plan, state: TrainState, servers: Communicator | None, recorder: Recorder, clock: Clock
    ) -> None:
        model = plan.model
        assert isinstance(model, Sparse)
        self.state = state
        self.slowness = 1.0
        self._clock = clock
        self._recorder = recorder
        self._norm = _Norm(plan, servers)
        self._width = model.width
        coefficients = min(model.columns * model.width, state.stop) - state.start
        self._decay = WeightDecay(state.arrays, coefficients, model.l2)

    def apply(self, w: Array, g: Array | SparseGradient, state: dict[str, Array], scale: float = 1.0) -> None:
        """Update the slice ``w`` in place from the mean gradient ``g``, the learning rate times ``scale``."""
        assert isinstance(g, SparseGradient)
        self._norm.limit(g.values)
        begin = self._clock.now()
        own, optimizer = self.state, optimizer_of(self.state)
        own.updates = t = own.updates + 1
        rate = optimizer.rate(t, state, scale)
        entries = g.entries
        self._decay.step(w, g.values, entries, rate)
        optimizer.apply(w, g.values, state, t, entries, rate)
        self._recorder.apply += _applied(self._clock, begin, self.slowness)

    def values(self, w: Array, keys: Array | None) -> Array:
        """Return the parameters at some keys, or all for None."""
        if keys is None:
            return np.array(self._decay.values(w))
        part: Array = w.reshape(-1, self._width)[keys].ravel()
        return self._decay.at(part, keys, self._width)

    def result(self, w: Array, state: dict[str, Array]) -> Array:
        """Return all parameters."""
        return self.values(w, None)


def optimizer_of(state: TrainState) -> Optimizer:
    """Return the optimizer in force."""
    assert state.optimizer is not None
    return state.optimizer


def _applied(clock: Clock, begin: float, slowness: float) -> float:
    """Return the seconds that an update took; a slow server's takes `slowness` times as long."""
    if slowness > 1:
        clock.sleep((clock.now() - begin) * (slowness - 1))
    return clock.now() - begin


class _Norm:
    """Keeps the mean of all workers' gradients to `clip_norm`; where a worker's own is applied, that worker sees to it."""

    def __init__(self, plan: Plan, servers: Communicator | None) -> None:
        self._largest = plan.optimizer.clip_norm if are_applied_together(plan) else None
        self._servers = servers

    def limit(self, g: Array) -> None:
        """Scale ``g``, this server's slice, in place."""
        if self._largest is None or self._servers is None:
            return
        squares = np.array([np.square(g, dtype=np.float64).sum()])
        self._servers.allreduce(squares)
        norm = math.sqrt(float(squares[0]))
        if norm > self._largest:
            g *= self._largest / norm
