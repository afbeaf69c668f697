"""Watchers: who is told of each epoch of a fit, and of its run as it goes, and may end it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from scaleml.arrays import Array
from scaleml.callbacks.base import Callback
from scaleml.runtime.epochs import current, newest
from scaleml.runtime.training_rank import TrainingRank

if TYPE_CHECKING:
    from scaleml.api.run import Run  # importing it at run time loads Dask, which a fit in this process does without


@dataclass(frozen=True)
class Epoch:
    """One epoch that is over.

    Parameters
    ----------
    number : int
        1, 2, ...
    loss : float
        The mean training objective.
    score : float
        Of the held-out rows; NaN without any.
    is_last : bool
        Whether the stop rule ends the run with it.
    params : callable
        Returns the parameters after it, (P,). On a cluster those that a rank has by now: of this epoch or a later one.
    """

    number: int
    loss: float
    score: float
    is_last: bool
    params: Callable[[], Array]


OnEpoch = Callable[[Epoch], object]
"""Told of each epoch; what is true ends the run."""


@dataclass(frozen=True)
class Watchers:
    """Whoever watches a fit.

    Parameters
    ----------
    on_epoch : sequence of callables
        Told of each epoch.
    on_poll : callable, optional
        Called with a cluster's run ten times a second.
    snapshots : bool
        Whether parameters will be asked for.
    callbacks : sequence of Callback
        Told of the run in threads of their own.
    """

    on_epoch: Sequence[OnEpoch] = ()
    on_poll: Callable[[Run], None] | None = None
    snapshots: bool = False
    callbacks: Sequence[Callback] = ()

    @property
    def is_idle(self) -> bool:
        """Whether nobody wants to know."""
        return not self.on_epoch and self.on_poll is None


def tell_all(epoch: Epoch, on_epoch: Sequence[OnEpoch]) -> bool:
    """Tell everybody of an epoch; return whether anybody had enough."""
    answers = [call(epoch) for call in on_epoch]
    return any(answers)


def tell_of_newest(on_epoch: Sequence[OnEpoch], rank: TrainingRank) -> None:
    """Tell everybody of the epoch that is just over, in the rank's own thread; who has enough ends the run."""
    epoch = Epoch(*newest(rank), partial(current, rank))
    if tell_all(epoch, on_epoch):
        rank.state.stopping.converged = True
