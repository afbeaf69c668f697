"""The optimizer on a server: gradients come as means already, and only a slice of the parameters is here."""

from __future__ import annotations

import math
from time import perf_counter as clock
from time import sleep
from typing import Any, Final, final

import numpy as np

from scaleml.optim import Optimizer
from scaleml.runtime.parameter_server.message_format import are_applied_together
from scaleml.runtime.plan import Plan
from scaleml.runtime.sparse_gradient import SparseGradient
from scaleml.telemetry.recorder import Recorder

_SMALLEST: Final = 1e-3
"""A factor of all coefficients that is smaller is multiplied into them, or they would overflow."""


@final
class DenseServerOptimizer:
    """Updates a slice of the parameters as a whole.

    Parameters
    ----------
    servers : Group
        All servers, where together they are to keep to the optimizer's `clip_norm`: each has a slice of the gradient only.
    """

    def __init__(self, plan: Plan, servers: Any, recorder: Recorder) -> None:
        self.optimizer: Optimizer = plan.optimizer
        self.t = 0
        self.slowness = 1.0
        self._recorder = recorder
        self._norm = _Norm(plan, servers)

    def apply(self, w: Any, g: Any, state: dict[str, Any], scale: float = 1.0) -> None:
        """Update the slice ``w`` in place from the mean gradient ``g`` of its length, the learning rate times ``scale``."""
        self._norm.limit(g)
        begin = clock()
        self.t += 1
        self.optimizer.apply(w, g, state, self.t, rate=self.optimizer.rate(self.t, state, scale))
        self._recorder.apply += _applied(begin, self.slowness)

    def values(self, w: Any, keys: Any) -> Any:
        """Return the parameters that are asked for: here always all."""
        return w

    def result(self, w: Any, state: dict[str, Any]) -> Any:
        """Return what the optimizer gives out."""
        return self.optimizer.result(w, state, self.t)


@final
class SparseServerOptimizer:
    """Updates the keys that a gradient has; the L2 penalty's decay of all coefficients is one factor of them all.

    With a factor ``a`` the parameters are ``a * w``, but for the intercept's. An update
    ``a w <- a w - rate * (l2 * a w + g)`` is ``a <- (1 - rate * l2) a`` and, at the keys of ``g``, ``w <- w - rate * g / a``.

    Parameters
    ----------
    start, stop : int
        The slice.

    References
    ----------
    Bottou, Stochastic gradient descent tricks, 2012, section 5.1.
    """

    def __init__(self, plan: Plan, servers: Any, recorder: Recorder, start: int, stop: int) -> None:
        network = plan.network
        self.optimizer: Optimizer = plan.optimizer
        self.t = 0
        self.slowness = 1.0
        self._recorder = recorder
        self._norm = _Norm(plan, servers)
        self._width = network.signature.n_outputs
        self._l2 = network.l2
        self._penalised = min(network.blocks[0].n_weights, stop) - start
        """So many of the slice's parameters are coefficients; the others are intercepts."""
        self._factor = 1.0

    def apply(self, w: Any, g: SparseGradient, state: dict[str, Any], scale: float = 1.0) -> None:
        """Update the slice ``w`` in place from the mean gradient ``g``, the learning rate times ``scale``."""
        self._norm.limit(g.values)
        begin = clock()
        self.t += 1
        rate = self.optimizer.rate(self.t, state, scale)
        if self._l2:
            self._decay(w, 1.0 - rate * self._l2)
        entries = g.entries
        if self._factor != 1.0:
            g.values[: np.searchsorted(entries, self._penalised)] /= self._factor
        self.optimizer.apply(w, g.values, state, self.t, entries, rate)
        self._recorder.apply += _applied(begin, self.slowness)

    def values(self, w: Any, keys: Any) -> Any:
        """Return the parameters at some keys, or all for None."""
        found = np.array(w) if keys is None else w.reshape(-1, self._width)[keys].ravel()
        if self._factor != 1.0:
            last = (
                self._penalised
                if keys is None
                else int(np.searchsorted(keys * self._width, self._penalised)) * self._width
            )
            found[:last] *= self._factor
        return found

    def result(self, w: Any, state: dict[str, Any]) -> Any:
        """Return all parameters."""
        return self.values(w, None)

    def _decay(self, w: Any, by: float) -> None:
        factor = self._factor * by
        if factor > _SMALLEST:
            self._factor = factor
        else:  # once in thousands of updates, unless the rate is absurd
            w[: self._penalised] *= factor
            self._factor = 1.0


def _applied(begin: float, slowness: float) -> float:
    """Return the seconds that an update took; a slow server's takes `slowness` times as long."""
    if slowness > 1:
        sleep((clock() - begin) * (slowness - 1))
    return clock() - begin


class _Norm:
    """Keeps the mean of all workers' gradients to `clip_norm`; where a worker's own is applied, that worker sees to it."""

    def __init__(self, plan: Plan, servers: Any) -> None:
        self._largest = plan.optimizer.clip_norm if are_applied_together(plan) else None
        self._servers = servers

    def limit(self, g: Any) -> None:
        """Scale ``g``, this server's slice, in place."""
        if self._largest is None:
            return
        squares = np.array([np.square(g, dtype=np.float64).sum()])
        self._servers.allreduce(squares)
        norm = math.sqrt(float(squares[0]))
        if norm > self._largest:
            g *= self._largest / norm
