"""Synchronous data parallelism: bulk synchronous parallel (BSP), synchronous SGD."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from scaleml.strategies.base import Context, Strategy


@dataclass(frozen=True, repr=False)
class AllReduce(Strategy):
    """Synchronous data parallelism: every rank sums its part of the gradient with all others each step.

    The result is that of one process on the whole batch, to rounding, and the same bits every time for the
    same number of ranks and shards.

    ::

        g_r <- sum of gradients over rank r's part of the batch
        g   <- g_0 + g_1 + ... + g_(n-1)           (all-reduce)
        w   <- w - rate * g / (weight of the batch)

    Examples
    --------
    >>> from scaleml import AllReduce
    >>> AllReduce()
    AllReduce()

    References
    ----------
    Goyal et al., Accurate, large minibatch SGD, 2017, arXiv:1706.02677.
    Agarwal et al., A reliable effective terascale linear learning system, JMLR 2014.
    """

    def step(self, w: Any, state: dict[str, Any], ctx: Context) -> None:
        """Take one step, in place."""
        g = ctx.gradient(w)
        ctx.group.allreduce(g)
        ctx.optimizer.apply(w, g, state)
