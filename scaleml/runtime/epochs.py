"""What is known of an epoch when it is over, and whoever wants to know."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from scaleml.runtime.training_loop import TrainingLoop


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
    params: Callable[[], Any]


OnEpoch = Callable[[Epoch], Any]
"""Told of each epoch; what is true ends the run."""


@dataclass(frozen=True)
class Watch:
    """Whoever follows a run.

    Parameters
    ----------
    on_epoch : sequence of callables
        Told of each epoch.
    on_look : callable, optional
        Called with a cluster's run ten times a second.
    snapshots : bool
        Whether parameters will be asked for.
    """

    on_epoch: Sequence[OnEpoch] = ()
    on_look: Callable[[Any], None] | None = None
    snapshots: bool = False

    @property
    def is_idle(self) -> bool:
        """Whether nobody wants to know."""
        return not self.on_epoch and self.on_look is None


def newest(loop: TrainingLoop) -> tuple[int, float, float, bool]:
    """Return number, loss, score and whether it is the last, of the epoch that is just over."""
    progress = loop.progress
    score = progress.scores[-1] if progress.scores else np.nan
    return len(progress.losses), progress.losses[-1], score, progress.converged


def current(loop: TrainingLoop) -> Any:
    """Return the parameters that a run would give out now."""
    if loop.servers is not None:
        return loop.last_evaluated
    return np.array(loop.optimizer.optimizer.result(loop.w, loop.state, loop.optimizer.t))


def tell(on_epoch: Sequence[OnEpoch], loop: TrainingLoop) -> None:
    """Tell of the epoch that is just over, in the loop's own thread."""
    epoch = Epoch(*newest(loop), partial(current, loop))
    if tell_all(epoch, on_epoch):
        loop.progress.converged = True


def tell_all(epoch: Epoch, on_epoch: Sequence[OnEpoch]) -> bool:
    """Tell everybody of an epoch; return whether anybody had enough."""
    answers = [call(epoch) for call in on_epoch]
    return any(answers)
