"""Epochs: what is known of one when it is over, and whoever is told of it in the rank's own thread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from scaleml.arrays import Array
from scaleml.runtime.training_rank import TrainingRank


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


def newest(rank: TrainingRank) -> tuple[int, float, float, bool]:
    """Return number, loss, score and whether it is the last, of the epoch that is just over."""
    seen = rank.state.stopping
    return len(seen.losses), seen.losses[-1], seen.scores[-1] if seen.scores else np.nan, seen.converged


def current(rank: TrainingRank) -> Array:
    """Return the parameters that a run would give out now."""
    state, kept = rank.state, rank.evaluation.kept
    if rank.has_servers:
        assert kept is not None
        return kept
    assert state.optimizer is not None
    return np.array(state.optimizer.result(state.params, state.arrays, state.updates))


def tell(on_epoch: Sequence[OnEpoch], rank: TrainingRank) -> None:
    """Tell of the epoch that is just over, in the loop's own thread."""
    epoch = Epoch(*newest(rank), partial(current, rank))
    if tell_all(epoch, on_epoch):
        rank.state.stopping.converged = True


def tell_all(epoch: Epoch, on_epoch: Sequence[OnEpoch]) -> bool:
    """Tell everybody of an epoch; return whether anybody had enough."""
    answers = [call(epoch) for call in on_epoch]
    return any(answers)
