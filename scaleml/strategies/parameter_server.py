"""The parameter server: workers push gradients and pull parameters, and a rule says who waits for whom."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import ClassVar

from scaleml.arrays import Array
from scaleml.checks import check_integer, check_option
from scaleml.compression import Codec
from scaleml.compression.base import check_codec
from scaleml.strategies.base import Layout, ServerStrategy
from scaleml.strategies.context import Context, ServerContext

CONSISTENCIES = ("bsp", "ssp", "async")


@dataclass(frozen=True, repr=False)
class ParameterServer(ServerStrategy):
    """SGD through servers that each hold a slice of the parameters, under one of three consistency models.

    A worker's clock counts its pushes. How many clocks a worker may be ahead of the slowest is what tells them apart:

    ============  ==========================================  ======================================================
    consistency   a worker goes on                            an update is
    ============  ==========================================  ======================================================
    ``"bsp"``     when all have come to its clock             the mean gradient of all workers' parts of a batch
    ``"ssp"``     when it is at most ``staleness`` clocks     one worker's push, applied as it comes
                  ahead of the slowest
    ``"async"``   at once                                     one worker's push, applied as it comes
    ============  ==========================================  ======================================================

    ::

        worker r:  g <- mean gradient at w over r's part of the batch;  push g;  pull w
        server s:  bsp         on the last push of a clock:  w[s] <- w[s] - rate * mean of all g[s]
                   ssp, async  on every push:                w[s] <- w[s] - rate * g[s]
                   then:  answer w[s] to each worker that waits and may go on

    With ``"bsp"`` the result is that of ``AllReduce()`` and of one process on the whole batch, to rounding. With the others
    a gradient is applied to newer parameters than it was computed on; how many updates newer, its staleness, is measured for
    every update and stands in the history, and the run ends when the servers have seen ``epochs`` times as many rows as
    there are: a fast worker takes more of the updates than a slow one.

    **Sparse push and pull.** With CSR data and a linear model only the columns that a batch touches travel, in both directions,
    and only these are updated: the traffic and the work of a step follow the non-zeros, not the size of the model. It is
    chosen where the result is that of whole vectors, to rounding: for plain `SGD` with or without an L2 penalty (the server
    keeps the decay of all coefficients in one number), and for `AdaGrad` without a penalty. Momentum, Adam, averaging and L1
    move every coefficient at every update, so they travel whole; so does `clip_norm` with a penalty. What was chosen, and why,
    stands in the run's settings.

    Parameters
    ----------
    consistency : {"async", "ssp", "bsp"}
        When a worker may go on.
    staleness : int, optional
        For ``"ssp"``, and only there: how many clocks a worker may be ahead of the slowest, 0 or more.
    servers : int
        Over how many servers the parameters are cut, in equal slices.
    staleness_aware : bool
        Divide an update's learning rate by its staleness, where that is 1 or more: stale gradients count for less.
    sparse : bool, optional
        True for sparse push and pull or an error that says what is against it, False for whole vectors. Default: sparse where
        that changes nothing but the speed.
    compression : Codec, optional
        How gradients travel, one of `scaleml.compression`, and back the changes that a worker's answer brings it since its
        last. What either loses is sent with the next, so a worker has the parameters only nearly; the run's result is the
        servers', as it is.

    overlap : bool
        For ``"async"``, and only there: compute the next gradient while the answer to a push is under way, as Downpour SGD
        does. Nobody waits for a server that keeps up. An update is staler, with n workers by about n: where that makes the loss
        grow, divide the learning rate by 2, or use ``staleness_aware``.

    Raises
    ------
    ValueError
        For another consistency, a staleness that does not fit it, less than one server, or no codec.

    Examples
    --------
    >>> from scaleml import ParameterServer
    >>> ParameterServer("async", servers=2).layout(workers=4)
    Layout(workers=4, servers=2)
    >>> [ParameterServer("bsp").ahead, ParameterServer("ssp", staleness=4).ahead, ParameterServer("async").ahead]
    [0, 4, inf]

    References
    ----------
    Dean et al., Large scale distributed deep networks, NIPS 2012.
    Ho et al., More effective distributed ML via a stale synchronous parallel parameter server, NIPS 2013.
    Li et al., Scaling distributed machine learning with the parameter server, OSDI 2014.
    Tang et al., DoubleSqueeze, ICML 2019, arXiv:1905.05957 (``compression``).
    Zhang, Gupta, Lian and Liu, Staleness-aware async-SGD for distributed deep learning, 2015, arXiv:1511.05950.
    """

    has_sparse_form: ClassVar[bool] = True
    consistency: str = "async"
    staleness: int | None = None
    servers: int = 1
    staleness_aware: bool = False
    sparse: bool | None = None
    compression: Codec | None = None
    overlap: bool = False

    def __post_init__(self) -> None:
        check_codec(self.compression)
        check_option("consistency", self.consistency, CONSISTENCIES)
        if self.consistency == "ssp":
            rule = "an integer, 0 or more, with 'ssp': the clocks that a worker may be ahead of the slowest; staleness=4, say"
            object.__setattr__(self, "staleness", check_integer("staleness", self.staleness, rule=rule))
        elif self.staleness is not None:
            raise ValueError(
                f"staleness={self.staleness!r} with consistency={self.consistency!r}: only 'ssp' has a bound; leave it out, or use "
                f"ParameterServer('ssp', staleness={self.staleness!r})"
            )
        rule = "a positive integer, the number of slices of the parameters"
        object.__setattr__(self, "servers", check_integer("servers", self.servers, 1, rule=rule))
        if self.overlap and self.consistency != "async":
            raise ValueError(
                f"overlap=True with consistency={self.consistency!r}, which says who waits for whom: only 'async' may go on "
                "before the answer; leave it out"
            )
        if self.overlap and self.sparse:
            raise ValueError(
                "overlap=True with sparse=True: the answer brings what the next gradient is computed on; leave one out"
            )
        if self.staleness_aware and self.consistency == "bsp":
            raise ValueError(
                "staleness_aware=True with consistency='bsp', where nothing is ever stale: use 'ssp' or 'async'"
            )

    @property
    def ahead(self) -> float:
        """How many clocks a worker may be ahead of the slowest."""
        if self.staleness is not None:
            return self.staleness
        return 0 if self.consistency == "bsp" else inf

    @property
    def answers_at_once(self) -> bool:
        """With ``"async"`` every push is an update, and nobody waits for others."""
        return self.consistency == "async"

    def layout(self, workers: int) -> Layout:
        """Return ``workers`` ranks that train and ``servers`` that hold parameters."""
        return Layout(workers, self.servers)

    def updates_a_batch(self, workers: int) -> int:
        """With ``"bsp"`` one, else one a worker."""
        return 1 if self.consistency == "bsp" else workers

    def step(self, w: Array, state: dict[str, Array], ctx: Context) -> None:
        """Worker: push the mean gradient, pull the parameters, in place; with ``overlap`` those after the push before."""
        g, servers = ctx.touched_gradient(w), ctx.servers
        servers.push(g, w)
        servers.pull(w, owing=int(self.overlap))

    def serve(self, w: Array, state: dict[str, Array], ctx: ServerContext) -> None:
        """Server: take in one message of any worker, update this server's slice in place, answer who may go on."""
        push = ctx.clients.receive()  # None: a worker waits again, or has left
        if self.consistency == "bsp":
            push = ctx.clients.mean_of_clock()  # None: not all have pushed
        if push is not None:
            rate = 1 / max(1, push.staleness) if self.staleness_aware else 1.0
            ctx.optimizer.apply(w, push.gradient, state, rate)
            ctx.clients.applied(push)
        ctx.clients.answer(w, self.ahead)
