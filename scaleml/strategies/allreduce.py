"""Synchronous data parallelism: bulk synchronous parallel (BSP), synchronous SGD."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from scaleml.compression import Codec
from scaleml.compression.base import check_codec
from scaleml.strategies.base import Context, Strategy, allreduce


@dataclass(frozen=True, repr=False)
class AllReduce(Strategy):
    """Synchronous data parallelism: every rank sums its part of the gradient with all others each step.

    The result is that of one process on the whole batch, to rounding, and the same bits every time for the
    same number of ranks and shards.

    ::

        g_r <- sum of gradients over rank r's part of the batch
        g   <- g_0 + g_1 + ... + g_(n-1)           (all-reduce)
        w   <- w - rate * g / (weight of the batch)

    Parameters
    ----------
    compression : Codec, optional
        How gradients travel, one of `scaleml.compression`. What it loses is sent with the next step's; the parameters
        still are the same on every rank, and the same every time.

    Raises
    ------
    ValueError
        If ``compression`` is no codec.

    Examples
    --------
    >>> from scaleml import AllReduce
    >>> from scaleml.compression import TopK
    >>> AllReduce(), AllReduce(compression=TopK(0.01))
    (AllReduce(), AllReduce(compression=TopK(ratio=0.01)))

    References
    ----------
    Goyal et al., Accurate, large minibatch SGD, 2017, arXiv:1706.02677.
    Agarwal et al., A reliable effective terascale linear learning system, JMLR 2014.
    """

    compression: Codec | None = None

    def __post_init__(self) -> None:
        check_codec(self.compression)

    def step(self, w: Any, state: dict[str, Any], ctx: Context) -> None:
        """Take one step, in place."""
        g = ctx.gradient(w)
        allreduce(g, state, ctx, self.compression)
        ctx.optimizer.apply(w, g, state)
