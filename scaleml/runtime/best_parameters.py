"""Best parameters: those of the best evaluation so far, kept beside the newest ones. One mechanism for runs and for stop rules."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from scaleml.arrays import Array, to_numpy
from scaleml.models.buffers import Buffers


@dataclass
class BestParameters:
    """What was best so far; a run with held-out data judges by its loss, one whose stop rule keeps the best by what that monitors.

    Parameters
    ----------
    value : float
        Of the best, smaller being better.
    evaluation : int
        Which of the run's held-out evaluations that was; 0 came before the first step. -1: none yet.
    params : (stop - start,) array or None
        This rank's slice of the parameters then, never written to afterwards. None: none yet; in an outcome, also those that the
        outcome gives out.
    buffers : Buffers or None
        Those that the model had then, where it has some.

    Examples
    --------
    >>> best = BestParameters()
    >>> for number, loss in enumerate([0.7, 0.3, float("nan"), 0.4]):
    ...     if best.is_beaten_by(loss):
    ...         best.keep(loss, np.array([loss]), number)
    >>> best
    BestParameters(value=0.3, evaluation=1, params=array([0.3]), buffers=None)
    """

    value: float = np.inf
    evaluation: int = -1
    params: Array | None = None
    buffers: Buffers | None = None

    @property
    def is_known(self) -> bool:
        """Whether there was an evaluation with a finite value."""
        return self.evaluation >= 0

    def is_beaten_by(self, value: float) -> bool:
        """Whether ``value`` is better; what is no number never is, and of two equal ones the earlier stays."""
        return value < self.value

    def keep(self, value: float, params: Array, evaluation: int, buffers: Buffers | None = None) -> None:
        """Take these as the best; ``params`` belong to this object from now on."""
        self.value, self.params, self.evaluation, self.buffers = value, params, evaluation, buffers

    def beside(self, params: Array | None) -> Self:
        """Return this for an outcome that gives out ``params``: without its own, where they are the same."""
        same = self.params is not None and params is not None and np.array_equal(self.params, params)
        return replace(self, params=None if same else self.params)

    def on_host(self) -> Self:
        """Return this with its parameters in the processor's memory; the same, where they are there."""
        return replace(self, params=None if self.params is None else to_numpy(self.params))

    def part(self, own: slice) -> Self:
        """Return this for another slice, within this one."""
        return replace(self, params=None if self.params is None else self.params[own])
