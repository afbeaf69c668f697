"""Place in a run: what schedules go by, and where an optimizer's state keeps it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from scaleml.arrays import Array

__all__ = ["Place", "follow", "fresh", "place_of"]

_UPDATE, _DONE, _PACE, _FIRST, _EPOCHS, _ITEMS = range(6)
"""What the array ``"schedule"`` holds: the update and the epochs done when its pace last changed; updates an epoch now, and when the run
began; epochs of the run."""


class Place(NamedTuple):
    """Where in a run an update is.

    Parameters
    ----------
    done : float
        Epochs that are over before it.
    update : float
        Epochs that it takes itself.
    pace : float
        Updates an epoch when the run began: what lengths in updates are converted by.
    epochs : float
        Those of the run.
    """

    done: float
    update: float
    pace: float
    epochs: float


def fresh() -> Array:
    """Return what a state's array ``"schedule"`` is before the run is known."""
    return np.zeros(_ITEMS)


def follow(array: Array, updates: int, done: float | None, pace: float, epochs: float | None) -> None:
    """Note in a state's array where the run is and how fast it goes; see `Optimizer.follow_run`."""
    if done is None:
        done = place_of(array, updates + 1).done
    array[[_UPDATE, _DONE, _PACE]] = updates, done, pace
    if epochs is not None:
        array[_EPOCHS] = epochs
    if not array[_FIRST]:
        array[_FIRST] = pace


def place_of(array: Array, t: int) -> Place:
    """Return where update `t` (the first is 1) is, by a state's array."""
    update, done, pace, first, epochs = array.tolist()
    if not pace:
        raise ValueError("a schedule goes with the length of a run, which is not known yet: call follow_run() first")
    return Place(done + (t - 1 - update) / pace, 1 / pace, first, epochs)
