"""Hogwild: lock-free updates of one parameter vector in shared memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from scaleml.arrays import Array
from scaleml.strategies.base import Strategy
from scaleml.strategies.context import Context


@dataclass(frozen=True, repr=False)
class Hogwild(Strategy):
    """Asynchronous SGD on one parameter vector in the shared memory of one host, without locks and without a server.

    All ranks read and write the same memory at the same time. A gradient may be computed on parameters that change
    meanwhile, and where two ranks write one coefficient at once an update may be lost. Where data is sparse such collisions are
    rare; the convergence of dense updates rests on small steps. How many updates of other ranks fall between two of
    a rank, its staleness, is measured from counters that are read without locks, too.

    ::

        worker r:  g <- mean gradient at w over r's part of the batch, while others write w
                   for each j with g[j] != 0:  w[j] <- w[j] - rate * g[j]

    With CSR data and a linear model only the coefficients of the columns that a batch touches are read and written. An L2
    penalty then acts on these alone, column j's in each row that has it, weighted by ``rows / (rows that have it)``: in the mean
    over an epoch the same penalty, as in the paper's section 3. That needs plain `SGD` or `AdaGrad`, and no L1.

    The optimizer's own arrays (momentum, sums of squares) are private to each rank. The run ends when all ranks together have
    seen ``epochs`` times as many rows as there are: a fast rank takes more of the updates than a slow one.

    Parameters
    ----------
    sparse : bool, optional
        True for sparse updates or an error that says what is against them, False for dense ones. Default: sparse where they
        are possible.

    Examples
    --------
    >>> from scaleml import Hogwild
    >>> Hogwild().layout(workers=4)
    Layout(workers=4, servers=0)

    References
    ----------
    Recht, Re, Wright and Niu, Hogwild!: a lock-free approach to parallelizing stochastic gradient descent, NIPS 2011.
    De Sa, Zhang, Olukotun and Re, Taming the wild: a unified analysis of Hogwild!-style algorithms, NIPS 2015.
    """

    replicated: ClassVar[bool] = False
    adds_updates: ClassVar[bool] = True
    synchronous: ClassVar[bool] = False
    shares_memory: ClassVar[bool] = True
    has_sparse_form: ClassVar[bool] = True
    sparse: bool | None = None

    def step(self, w: Array, state: dict[str, Array], ctx: Context) -> None:
        """Take one step on the shared vector, in place."""
        g = ctx.touched_gradient(w)
        ctx.optimizer.apply(w, g, state)
        ctx.shared.count(g)
