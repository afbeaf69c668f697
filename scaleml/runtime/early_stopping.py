"""Epoch by epoch: what the training loss and the held-out score were, and whether to go on."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from scaleml.optim.base import SLOWER
from scaleml.runtime.evaluation import Evaluation
from scaleml.runtime.gradient import Update
from scaleml.runtime.plan import Plan


class EarlyStopping:
    """Decides whether a run has converged, the same on all ranks, from values that all ranks share.

    Where gradients are summed over all ranks each step, so are their losses; elsewhere the ranks sum the losses here,
    with one small all-reduce at a boundary that they all come to.

    Parameters
    ----------
    plan : Plan
        The run; without a stop rule it never ends early.
    group : Group
        The ranks that train.
    update : Update
        Where losses gather.
    evaluation : Evaluation
        Where held-out scores come from.

    Attributes
    ----------
    losses, scores : list of float
        One an epoch.
    best : (P,) array or None
        The parameters of the best score, if the rule keeps them.
    is_due : bool
        Whether an epoch waits for its decision.
    converged : bool
        Whether the rule has ended the run.
    """

    def __init__(self, plan: Plan, group: Any, update: Update, evaluation: Evaluation) -> None:
        self._rule = plan.stop
        self._network = plan.network
        self._l1 = 0.0 if plan.steps is None else plan.steps.l1
        self._group = group
        self._update = update
        self._evaluation = evaluation
        self._best = math.inf
        self._stale = 0
        self._epochs = 0
        self.losses: list[float] = []
        self.scores: list[float] = []
        self.best: Any = None
        self.is_due = False
        self.converged = False

    def epoch_over(self, state: dict[str, Any]) -> None:
        """Note that an epoch has come to its end; the decision waits for the next common boundary."""
        self._epochs += 1
        if self._rule is None:
            self._update.end_epoch(state)
        else:
            self.is_due = True

    def decide(self, w: Any, state: dict[str, Any], *, shared: bool, epochs: int | None = None) -> bool:
        """Take in the epoch that is over; True if the run is to end. All ranks call it at the same boundary.

        Parameters
        ----------
        w : (P,) array
            The parameters, the same on all ranks.
        state : dict of arrays
            The optimizer's.
        shared : bool
            Whether the losses are sums over all ranks already.
        epochs : int, optional
            How many epochs are over, where ranks that keep their own pace could count differently.
        """
        rule = self._rule
        assert rule is not None
        sums = np.array(self._update.epoch_sums(), np.float64)
        if not shared and self._group.size > 1:
            self._group.allreduce(sums)
        epochs, self._epochs = epochs or self._epochs, 0
        self.is_due = False
        loss = float(sums[0] / sums[1]) / rule.targets if sums[1] else math.nan
        loss += self._network.penalty(w)
        if self._l1:
            loss += self._l1 * float(abs(w[: self._network.blocks[0].n_weights]).sum())
        self.losses.append(loss)
        value = loss
        if self._evaluation.last is not None:
            score = self._evaluation.last[1]
            self.scores.append(score)
            if rule.monitor == "score":
                value = -score
        better = value < self._best
        if rule.keep_best and (better or self.best is None):
            self.best = np.array(w)
        self._stale = 0 if rule.tol is None or not value > self._best - rule.tol else self._stale + epochs
        self._best = min(self._best, value)
        if rule.power_t is not None:
            self._divide(state, (self._update.rows + 1) ** rule.power_t / float(state["schedule"][0]))
        if self._stale >= rule.n_iter_no_change:
            self._stale = 0
            self.converged = rule.power_t is not None or not self._update.optimizer.may_slow_down(state)
            if not self.converged:
                self._divide(state, SLOWER)
        return self.converged

    @staticmethod
    def _divide(state: dict[str, Any], factor: float) -> None:
        """Divide the learning rate; what has gathered in the velocity keeps the rate it came with, as in scikit-learn."""
        state["schedule"][0] *= factor
        if "velocity" in state:
            state["velocity"] *= factor
