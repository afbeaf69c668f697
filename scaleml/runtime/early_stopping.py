"""Early stopping: what the training loss and the held-out score of each epoch were, and whether to go on."""

from __future__ import annotations

import math

import numpy as np

from scaleml.arrays import Array
from scaleml.comm.communicator import Communicator
from scaleml.models.flat_model import matrices_of, penalty_of
from scaleml.optim import LBFGS
from scaleml.optim.base import SLOWER
from scaleml.runtime.evaluation import Evaluation
from scaleml.runtime.plan import Plan
from scaleml.runtime.queued_step import AnyStep
from scaleml.runtime.train_state import StoppingState, TrainState


class EarlyStopping:
    """Decides whether a run has converged, the same on all ranks, from values that all ranks share.

    Where gradients are summed over all ranks each step, so are their losses; elsewhere the ranks sum the losses here,
    with one small all-reduce at a boundary that they all come to.

    Parameters
    ----------
    plan : Plan
        The run; without a stop rule it never ends early.
    group : Communicator
        The ranks that train.
    state : TrainState
        Where all that it has seen is kept.
    optimizer : OptimizerStep or QueuedStep
        Where losses gather.
    evaluation : Evaluation
        Where held-out scores come from.
    """

    def __init__(
        self,
        plan: Plan,
        group: Communicator,
        state: TrainState,
        optimizer: AnyStep,
        evaluation: Evaluation,
    ) -> None:
        self._rule = plan.stop
        self._model = plan.model
        self._l1 = 0.0 if plan.steps is None else plan.steps.l1
        self._group = group
        self._train_state = state
        self._optimizer = optimizer
        self._evaluation = evaluation

    @property
    def state(self) -> StoppingState:
        """What it has seen."""
        return self._train_state.stopping

    @property
    def is_due(self) -> bool:
        """Whether an epoch waits for its decision."""
        return self._train_state.stopping.pending > 0

    @property
    def converged(self) -> bool:
        """Whether the rule has ended the run."""
        return self._train_state.stopping.converged

    def epoch_over(self) -> None:
        """Note that an epoch has come to its end; the decision waits for the next common boundary."""
        if self._rule is None:
            self._optimizer.end_epoch()
        else:
            self.state.pending += 1

    def decide(self, w: Array, *, shared: bool, epochs: int | None = None) -> bool:
        """Take in the epoch that is over; True if the run is to end. All ranks call it at the same boundary.

        Parameters
        ----------
        w : (P,) array
            The parameters, the same on all ranks.
        shared : bool
            Whether the losses are sums over all ranks already.
        epochs : int, optional
            How many epochs are over, where ranks that keep their own pace could count differently.
        """
        rule, state = self._rule, self.state
        assert rule is not None
        sums = np.array(self._optimizer.epoch_sums(), np.float64)
        if not shared and self._group.size > 1:
            self._group.allreduce(sums)
        epochs, state.pending = epochs or state.pending, 0
        loss = float(sums[0] / sums[1]) / rule.targets if sums[1] else math.nan
        loss += self._penalty(w)
        optimizer, slots = self._train_state.optimizer, self._train_state.arrays
        if isinstance(optimizer, LBFGS):  # it has the objective where it has come to, not at the next trial
            loss = optimizer.objective(slots)
        state.losses.append(loss)
        value = loss
        if self._evaluation.last is not None:
            score = self._evaluation.last[1]
            state.scores.append(score)
            if rule.monitor == "score":
                value = -score
        best = self._train_state.best
        if rule.keep_best and best.is_beaten_by(value):
            number = max(0, self._train_state.evaluations - 1)
            best.keep(value, w.copy(), number, self._evaluation.kept_buffers)
        state.stale = 0 if rule.tol is None or not value > state.best_value - rule.tol else state.stale + epochs
        state.best_value = min(state.best_value, value)
        if rule.power_t is not None:
            self._divide(slots, (self._train_state.rows + 1) ** rule.power_t / float(slots["schedule"][0]))
        if state.stale >= rule.n_iter_no_change:
            self._end_or_slow_down()
        if isinstance(optimizer, LBFGS) and optimizer.ended(slots):
            state.converged = True
        return state.converged

    def _end_or_slow_down(self) -> None:
        state, slots, optimizer = self.state, self._train_state.arrays, self._train_state.optimizer
        assert self._rule is not None and optimizer is not None
        state.stale = 0
        state.converged = self._rule.power_t is not None or not optimizer.may_slow_down(slots)
        if not state.converged:
            self._divide(slots, SLOWER)

    def _penalty(self, w: Array) -> float:
        penalty = penalty_of(self._model, w)
        if self._l1:
            first, rows, columns = matrices_of(self._model)[0]
            penalty += self._l1 * float(abs(w[first : first + rows * columns]).sum())
        return penalty

    @staticmethod
    def _divide(slots: dict[str, Array], factor: float) -> None:
        """Divide the learning rate; what has gathered in the velocity keeps the rate it came with, as in scikit-learn."""
        slots["schedule"][0] *= factor
        if "velocity" in slots:
            slots["velocity"] *= factor
