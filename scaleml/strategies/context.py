"""What a strategy may do: the gradients it asks for, the ranks it talks to, the optimizer that it hands gradients to.

A strategy has no other effects. Each protocol here is one of its partners; the runtime has what stands behind them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

import numpy as np

from scaleml.arrays import Array
from scaleml.comm.communicator import Communicator
from scaleml.compression import CodecContext

TAIL: Final = 3
"""Items behind a gradient: the sum of the losses, the weight and the number of the rows it was taken over."""


@dataclass(frozen=True)
class SparseGradient:
    """A gradient sum over some rows of data, of what their columns touch.

    The parameters of a linear model are a matrix with a row of K outputs for each column of X, and one for the intercept. A *key*
    is the number of such a row.

    Parameters
    ----------
    keys : (m,) integer array
        What it is not zero at, ascending.
    values : (m * K + 3,) array
        The sum at each key, then the tail of every gradient.
    width : int
        K.
    """

    keys: Array
    values: Array
    width: int

    @property
    def entries(self) -> Array:
        """(m * K,) where the values lie in the flat vector."""
        return self.keys if self.width == 1 else (self.keys[:, None] * self.width + np.arange(self.width)).ravel()


class Push(NamedTuple):
    """A gradient that a server applies: one worker's, or the mean of all workers'.

    Parameters
    ----------
    gradient : array or SparseGradient
        The mean over its rows, of this server's slice; used up when it is applied.
    staleness : int
        Updates between the parameters it was computed on and now.
    weight : float
        Of the rows that it was taken over.
    source : int
        The worker; -1 for all.
    """

    gradient: Array | SparseGradient
    staleness: int
    weight: float
    source: int


class Updater(Protocol):
    """The optimizer step."""

    def apply(self, w: Array, g: Array | SparseGradient, state: dict[str, Array], scale: float = 1.0) -> None:
        """Update ``w`` in place from the gradient sum ``g``, with the learning rate times ``scale``."""


class ParameterServers(Protocol):
    """All servers as one, on a rank that trains."""

    def push(self, g: Array | SparseGradient, w: Array) -> None:
        """Send each server its slice of the mean gradient at ``w``; ``g``, a sum with its tail, is used up."""

    def pull(self, w: Array, owing: int = 0) -> None:
        """Receive parameters into ``w`` (P,), until the answers to no more than so many pushes are owing."""


class Clients(Protocol):
    """All ranks that train as one, on a server: whose pushes come and who is answered."""

    def receive(self) -> Push | None:
        """Wait for the next message of any worker; return its gradient, None if it has none to apply now."""

    def mean_of_clock(self) -> Push | None:
        """Return the mean of all workers' pushes of this clock, once all are here; None before, and if nothing was pushed."""

    def applied(self, push: Push) -> None:
        """Note that a push has been applied."""

    def answer(self, w: Array, ahead: float) -> None:
        """Answer every worker that waits and may go on: its clock is at most ``ahead`` above the slowest worker's."""


class SharedVector(Protocol):
    """The one vector in memory that all ranks of a host write."""

    def count(self, g: Array | SparseGradient) -> None:
        """Count an update by the gradient ``g``, with its tail, and see how many others there were since the last one."""


class Neighbours(Protocol):
    """The other ranks of a run without servers, which average parameters with each other."""

    def average(self, w: Array, sources: Collection[int], receivers: Collection[int]) -> None:
        """Give ``w`` (P,) to the receivers, and replace it by the mean of itself and the sources' parameters."""

    def mix(self, w: Array) -> None:
        """Take in what has come: answers to our offers, offers that we answer."""

    def offer(self, w: Array, partner: int) -> None:
        """Offer ``w`` (P,) to a passive rank, unless an offer is under way."""


class Context(Protocol):
    """The only effects of a strategy on a rank that trains.

    ``gradient(w)`` returns a flat array of ``P + 3`` items: the sum of the gradients over this rank's part of
    the batch, then the sum of the losses, the weight and the number of those rows, so that they travel with it.
    ``optimizer.apply(w, g, state)`` divides by that weight, adds the penalty and updates ``w`` in place.
    ``gradient(w, ready)`` calls ``ready(part)`` with parts of that array as soon as they are final, all of it in the end.
    """

    @property
    def group(self) -> Communicator:
        """The ranks along the data axis."""

    @property
    def servers(self) -> ParameterServers:
        """The servers, of a run that has some."""

    @property
    def shared(self) -> SharedVector:
        """The vector that all ranks write, under a strategy that shares memory."""

    @property
    def neighbours(self) -> Neighbours:
        """The other ranks, of a run without servers."""

    @property
    def step(self) -> int:
        """Which step this is, from 0."""

    @property
    def is_last_step(self) -> bool:
        """Whether the run ends with this step."""

    @property
    def ends_epoch(self) -> bool:
        """Whether the epoch ends with this step."""

    @property
    def optimizer(self) -> Updater:
        """What applies gradients."""

    @property
    def codec_context(self) -> CodecContext:
        """What codecs must know of this rank and step."""

    def gradient(self, w: Array, ready: Callable[[Array], object] | None = None) -> Array:
        """Return the gradient sum over this rank's part of the batch, with its tail."""

    def touched_gradient(self, w: Array) -> Array | SparseGradient:
        """Return the same, sparse where the run has chosen sparse updates: for strategies that have a sparse form."""


class ServerContext(Protocol):
    """The only effects of a strategy on a server: the workers it hears and answers, and the optimizer of its slice."""

    @property
    def clients(self) -> Clients:
        """Whose pushes come and who is answered."""

    @property
    def optimizer(self) -> Updater:
        """What applies gradients."""
