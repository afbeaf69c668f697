"""The serial baseline: what every other strategy has to beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from scaleml.arrays import Array
from scaleml.checks import check_integer
from scaleml.strategies.base import Layout, Strategy
from scaleml.strategies.context import Context


@dataclass(frozen=True, repr=False)
class Serial(Strategy):
    """Minibatch SGD on one worker: the baseline.

    ::

        w <- w - rate * mean gradient of the batch

    Of CSR data and a linear model it computes and updates the columns that a batch fills, where that comes to the same and is less
    work; see `AllReduce`.

    Parameters
    ----------
    threads : int or None
        BLAS threads of the one rank. None: as many as its Dask worker has threads, as for every other
        strategy. A comparison also runs the baseline with all the cores of one host.

    Examples
    --------
    >>> from scaleml import Serial
    >>> Serial(), Serial(threads=2)
    (Serial(), Serial(threads=2))

    References
    ----------
    Robbins and Monro, A stochastic approximation method, 1951.
    """

    has_sparse_form: ClassVar[bool] = True
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.threads is not None:
            rule = "a positive integer, or None for the worker's own number"
            object.__setattr__(self, "threads", check_integer("threads", self.threads, 1, rule=rule))

    def layout(self, workers: int) -> Layout:
        """One rank, however many workers there are."""
        return Layout(1)

    def step(self, w: Array, state: dict[str, Array], ctx: Context) -> None:
        """Take one step, in place."""
        g = ctx.touched_gradient(w)
        ctx.optimizer.apply(w, g, state)
