"""Gossip: decentralised averaging among neighbours, without a server and without a barrier."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import ClassVar

from scaleml.arrays import Array
from scaleml.checks import check_flag, check_integer, check_option
from scaleml.strategies.base import Strategy
from scaleml.strategies.context import Context

TOPOLOGIES = ("ring", "exponential", "random")


@dataclass(frozen=True, repr=False)
class Gossip(Strategy):
    """Decentralised SGD: each rank averages its parameters with a few others' after each step.

    Each of N ranks steps on ``batch_size / N`` rows; the optimizer's own state (momentum) stays local. Nobody waits for
    more than the neighbours, and no rank sends more than two vectors a step, however many ranks there are.

    ::

        w_r <- w_r - rate * mean gradient over rank r's part of the batch
        w_r <- sum over j of W[r, j] * w_j                        (synchronous: W of this step, see below)
        at the end:  w_r <- mean of all ranks

        active rank i, asynchronous:   g <- mean gradient at w_i, while an offer of w_i is under way to a passive rank j
                                       when j has answered d:     w_i <- w_i - d
                                       w_i <- w_i - rate * g;     offer w_i to the next j, if none is under way
        passive rank j:                on an offer x:             d <- (x - w_j) / 2;  w_j <- w_j + d;  answer d

    Every W is doubly stochastic, so that averaging leaves the mean of all ranks as it is:

    ``"ring"``
        A third of each neighbour and of oneself (with two ranks: halves).
    ``"exponential"``
        Half of oneself, half of the rank 1, 2, 4, ... places before, one distance a step. W is then half a
        permutation, so the weights that push-sum would carry along stay 1. With 2^k ranks, k steps give the exact mean.
    ``"random"``
        Ranks are paired anew each step, the same way on all of them, and a pair takes its mean. Of an odd number one
        rank stays alone.

    Parameters
    ----------
    topology : {"ring", "exponential", "random"}
        Who averages with whom.
    asynchronous : bool
        Ranks keep their own pace: a fast one takes more of the steps than a slow one. Ranks with even numbers are active,
        those with odd numbers passive; an active rank asks passive ones alone: its neighbours in the ring, those 1, 3, 5, 9, ...
        places away, or any.
    seed : int
        Decides who meets whom.

    Raises
    ------
    ValueError
        For another topology.

    Notes
    -----
    An active rank never waits for an answer, and never answers; a passive one never asks, and answers between two of its steps:
    nobody waits for somebody who waits, so there is no deadlock. The answer is the difference that both apply, one adding and
    one subtracting it, so the mean of all ranks is kept although the active rank has moved on meanwhile.

    An asynchronous run ends when all ranks together have taken ``epochs`` times as many rows as there are. With the
    parameters, ranks tell each other how many rows they know of; rank 0 calls the evaluations and the end. It hears of rows
    with some delay, so a few more may be taken. The staleness of an update is how many updates of its partners its rank took in
    between the gradient's computation and its use.

    Where ranks share no memory, a long vector travels only while its receiver reads: there an active rank waits for the end of a
    passive one's step.

    Examples
    --------
    >>> from scaleml import Gossip
    >>> [Gossip("ring").sources(0, rank, 5) for rank in range(5)]
    [(1, 4), (0, 2), (1, 3), (2, 4), (0, 3)]
    >>> [Gossip("exponential").sources(step, 0, 8) for step in range(3)]
    [(7,), (6,), (4,)]
    >>> [Gossip("ring", asynchronous=True).partners(rank, 5) for rank in range(5)]
    [(1,), (), (1, 3), (), (3,)]

    References
    ----------
    Lian et al., Can decentralized algorithms outperform centralized algorithms?, NIPS 2017, arXiv:1705.09056.
    Assran et al., Stochastic gradient push for distributed deep learning, ICML 2019, arXiv:1811.10792 (``"exponential"``).
    Lian et al., Asynchronous decentralized parallel stochastic gradient descent, ICML 2018, arXiv:1710.06952 (asynchronous).
    """

    replicated: ClassVar[bool] = False
    topology: str = "ring"
    asynchronous: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        check_option("topology", self.topology, TOPOLOGIES)
        check_flag("asynchronous", self.asynchronous)
        object.__setattr__(self, "seed", check_integer("seed", self.seed))

    @property
    def synchronous(self) -> bool:  # type: ignore[override]
        """Whether all ranks take step ``k`` together with their neighbours."""
        return not self.asynchronous

    def commits(self, step: int) -> bool:
        """Never: ranks agree at the end alone."""
        return False

    def is_boundary(self, step: int, ends_epoch: bool) -> bool:
        """Whether commands and evaluations may come after this step: always."""
        return True

    def command_step(self, step: int, epoch_end: int, size: int) -> int:
        """Return the step by whose end rank 0's word has gone from neighbour to neighbour to all ranks."""
        told = {0}
        while True:
            told |= {rank for rank in range(size) if told.intersection(self.sources(step, rank, size))}
            if len(told) == size:
                return step
            step += 1

    def sources(self, step: int, rank: int, size: int) -> tuple[int, ...]:
        """Return the ranks whose parameters ``rank`` takes in at ``step``, each as much as its own."""
        if size == 1:
            return ()
        if self.topology == "ring":
            return tuple(sorted({(rank - 1) % size, (rank + 1) % size}))
        if self.topology == "exponential":
            return ((rank - 2 ** (step % (size - 1).bit_length())) % size,)
        order = _shuffled(self.seed, step, size)
        at = order.index(rank) ^ 1
        return (order[at],) if at < size else ()

    def receivers(self, step: int, rank: int, size: int) -> tuple[int, ...]:
        """Return the ranks that take in the parameters of ``rank`` at ``step``."""
        if self.topology == "exponential" and size > 1:
            return ((rank + 2 ** (step % (size - 1).bit_length())) % size,)
        return self.sources(step, rank, size)

    def partners(self, rank: int, size: int) -> tuple[int, ...]:
        """Return the passive ranks that ``rank`` may ask when asynchronous; none if it is passive itself."""
        if rank % 2:
            return ()
        if self.topology == "random":
            return tuple(range(1, size, 2))
        hops = [1, *(2**k + 1 for k in range(1, size.bit_length()))] if self.topology == "exponential" else [1]
        around = {(rank + way * hop) % size for hop in hops if hop < size for way in (1, -1)}
        return tuple(sorted(other for other in around if other % 2))

    def step(self, w: Array, state: dict[str, Array], ctx: Context) -> None:
        """Take one step, in place."""
        rank, size = ctx.group.rank, ctx.group.size
        g = ctx.gradient(w)
        if self.asynchronous:
            ctx.neighbours.mix(w)
            ctx.optimizer.apply(w, g, state)
            partners = self.partners(rank, size)
            if partners:
                order = _shuffled(self.seed, ctx.step * size + rank, len(partners))
                ctx.neighbours.offer(w, partners[order[0]])
            return
        ctx.optimizer.apply(w, g, state)
        if ctx.is_last_step:
            ctx.group.allreduce(w)
            w /= size
        else:
            ctx.neighbours.average(w, self.sources(ctx.step, rank, size), self.receivers(ctx.step, rank, size))


@lru_cache(maxsize=64)
def _shuffled(seed: int, number: int, size: int) -> list[int]:
    """Return ``0 .. size - 1`` in an order that is the same wherever it is asked for."""
    order = list(range(size))
    Random((seed << 48) + number).shuffle(order)
    return order
