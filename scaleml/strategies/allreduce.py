"""Synchronous data parallelism: bulk synchronous parallel (BSP), synchronous SGD."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from scaleml.arrays import Array
from scaleml.checks import check_flag, check_option
from scaleml.comm.collectives import TOPOLOGIES, choose
from scaleml.comm.collectives.sparse import sparse_allreduce
from scaleml.comm.communicator import Handle
from scaleml.compression import Codec
from scaleml.compression.base import check_codec
from scaleml.compression.error_feedback import forget
from scaleml.strategies.base import Strategy
from scaleml.strategies.context import TAIL, Context, SparseGradient


@dataclass(frozen=True, repr=False)
class AllReduce(Strategy):
    """Synchronous data parallelism: every rank sums its part of the gradient with all others each step.

    The result is that of one process on the whole batch, to rounding, and the same bits every time for the
    same number of ranks and shards.

    ::

        g_r <- sum of gradients over rank r's part of the batch
        g   <- g_0 + g_1 + ... + g_(n-1)           (all-reduce; with overlap, a layer at a time as backward has it)
        w   <- w - rate * g / (weight of the batch)

    Parameters
    ----------
    compression : Codec, optional
        How gradients travel, one of `scaleml.compression`. What it loses is sent with the next step's; the parameters
        still are the same on every rank, and the same every time.
    topology : {"auto", "direct", "ring", "halving", "hierarchical"}
        Who sends what to whom, see the notes. Each gives the same bits on every rank and every time, but not the bits of
        another, for it sums in another order.
    overlap : bool
        Send a layer's gradient while the next one's is computed. A thread of its own sends: worth it where the network is
        slower than the processor (two hosts at 100 Mbit/s, 2.3 million parameters: 1.2 times as fast), not in shared memory
        (0.9 times).
    sparse : bool, optional
        True for sparse gradients of CSR data or an error that says what is against them, False for whole vectors. Default: sparse
        where a batch fills few columns, see the notes.

    Raises
    ------
    ValueError
        If ``compression`` is no codec, ``topology`` is none of these, or two of ``compression``, ``sparse`` and the others go
        together that have a way of their own each.

    Notes
    -----
    ``"direct"``
        Everybody sends to everybody: each rank sums its part of the vector, in rank order. Within a host, in shared memory;
        there, from six ranks on, one rank sums short vectors for all.
    ``"ring"``
        Each rank talks to its two neighbours alone.
    ``"halving"``
        Halving and doubling: exchanges in the number of the ranks' binary digits.
    ``"hierarchical"``
        Within each host in shared memory, then between one leader a host.

    **Sparse gradients.** With CSR data and a linear model, the gradient of the loss is zero but at the columns that the batch's rows
    fill. Only these are computed and sent, as keys and values; every rank adds all ranks' in the order of ranks, which gives the bits
    of ``"direct"``. The update is then of these columns alone with plain `SGD` (an L2 penalty's decay of all coefficients is kept in
    one number: the same to rounding) and with `AdaGrad` without penalty. Momentum, Adam, averaging, an L1 penalty, `clip_norm` with
    a penalty, and the steps of scikit-learn's estimators move every coefficient at every update: there gradients travel sparse, and
    the update is as of whole vectors, to the bit.

    By default that is so where the values that the rows of a batch store, over all ranks and on the average of all data, are less than
    an eighth of the columns of X; where all ranks share one host's memory, through which whole vectors go fast, a 32nd. All ranks have
    the same figures, and go by them again when ``run.update`` changes the batch size. What was chosen, and why, stands in the run's
    settings. A topology other than ``"direct"`` that is named is of whole vectors, and so are codecs and ``overlap``.

    ``"auto"`` is one of them by the bytes of the parameters and the ranks on each host, see `comm.collectives.choose`. It is fixed at
    the start, and ``run.topology`` says which; name it to have the same bits in another place.

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
    Renggli et al., SparCML: high-performance sparse communication for machine learning, SC 2019, arXiv:1802.08021 (``sparse``).
    """

    has_sparse_form: ClassVar[bool] = True
    compression: Codec | None = None
    topology: str = "auto"
    overlap: bool = False
    sparse: bool | None = None

    def __post_init__(self) -> None:
        first: object = self.compression  # as Gossip takes its topology
        if first in ("auto", *TOPOLOGIES):
            raise ValueError(f"compression={first!r}: that is a topology; write AllReduce(topology={first!r})")
        check_codec(self.compression)
        check_option("topology", self.topology, ("auto", *TOPOLOGIES))
        check_flag("overlap", self.overlap)
        if self.compression is not None and (self.overlap or self.topology not in ("auto", "direct")):
            raise ValueError(
                f"{self!r}: compressed gradients go directly from each rank to all, when all layers are there; "
                "leave out topology and overlap, or compression"
            )
        if self.sparse and (self.compression is not None or self.overlap or self.topology not in ("auto", "direct")):
            raise ValueError(
                f"{self!r}: sparse gradients go directly from each rank to all, when all of one is there; "
                "leave out compression, topology and overlap, or sparse"
            )

    def resolve(self, nbytes: int, hosts: Sequence[int]) -> AllReduce:
        """Return it with a topology for parameters of ``nbytes`` bytes on hosts with so many ranks each."""
        if self.topology != "auto":
            return self
        is_direct = self.sparse or self.compression is not None
        return replace(self, topology="direct" if is_direct else choose(nbytes, hosts))

    def sums_gradients(self, step: int) -> bool:
        """Yes, unless a codec loses something."""
        return self.compression is None

    def end(self, state: dict[str, Array]) -> None:
        """Forget what a codec lost."""
        forget(state)

    def step(self, w: Array, state: dict[str, Array], ctx: Context) -> None:
        """Take one step, in place."""
        g: Array | SparseGradient
        if self.overlap:
            under_way: list[Handle[None]] = []
            g = ctx.gradient(w, lambda part: under_way.append(ctx.group.allreduce_start(part, self.topology)))
            for reduced in under_way:
                reduced.wait()
        else:
            g = ctx.touched_gradient(w)
            if isinstance(g, SparseGradient):
                g = sum_touched(g, ctx)
            else:
                sum_gradient(g, state, ctx, self.compression, self.topology)
        ctx.optimizer.apply(w, g, state)


def sum_touched(g: SparseGradient, ctx: Context) -> SparseGradient:
    """Return the sum over the ranks of sparse gradients, tails included: what any of them has touched."""
    keys, values = sparse_allreduce(ctx.group, g.keys, g.values, g.width)
    return SparseGradient(keys, values, g.width)


def sum_gradient(
    g: Array, state: dict[str, Array], ctx: Context, codec: Codec | None, topology: str = "direct"
) -> None:
    """Sum the gradient ``g`` (P + 3,) over the ranks, in place: through ``codec`` where there is one, its tail always exactly."""
    if codec is None:
        ctx.group.allreduce(g, topology)
        return
    tail = g[-TAIL:]
    ctx.group.allreduce(tail)
    codec.allreduce(g[:-TAIL], float(tail[1]), ctx.group, state, ctx.codec_context)
