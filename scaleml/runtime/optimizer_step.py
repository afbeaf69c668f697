"""The optimizer step: from a gradient sum to new parameters, in place, as strategies see it."""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from typing import Final

import numpy as np

from scaleml.arrays import Array
from scaleml.comm.communicator import Communicator
from scaleml.models.flat_model import Penalised, penalty_of
from scaleml.optim import LBFGS, clip
from scaleml.runtime.errors import NonFinite, is_finite
from scaleml.runtime.parameter_groups import group_segments
from scaleml.runtime.plan import Plan
from scaleml.runtime.schedule_place import begin_schedule, follow_pace
from scaleml.runtime.train_state import TrainState
from scaleml.runtime.weight_decay import WeightDecay
from scaleml.strategies import Strategy
from scaleml.strategies.context import TAIL, SparseGradient
from scaleml.telemetry.recorder import Recorder


class OptimizerStep:
    """Applies gradients to a rank's state.

    Parameters
    ----------
    plan : Plan
        The run.
    world : Communicator
        All ranks, for what errors and the clock say.
    state : TrainState
        Whose optimizer is applied, and where updates, rows and the epoch's losses are counted.
    recorder : Recorder
        Where time and losses are noted.

    Attributes
    ----------
    squares : float
        The squared norm of the gradient that was applied last, not clipped; with its penalty, but for one by `decay`.
    decay : WeightDecay or None
        What the L2 penalty does where gradients are sparse, and so are the updates by them.
    whole : callable or None
        Makes a whole gradient of a sparse one, where updates are of all parameters.
    touches : bool
        Whether a step goes by what its batch touches alone.
    last_good : None
        No parameters but those of the state: what is not finite is refused before it is applied.
    """

    last_good: Final[Array | None] = None

    def __init__(self, plan: Plan, world: Communicator, state: TrainState, recorder: Recorder) -> None:
        self._world = world
        self._now = world.clock.now
        self._plan = plan
        self._state = state
        self._workers = plan.layout.workers
        self._model = plan.model
        self._objective_grad = plan.model.objective_grad if isinstance(plan.model, Penalised) else None
        self._steps = plan.steps
        self._by_rows = plan.by_rows
        if plan.sparse and not plan.strategy.replicated:  # the gradient has the penalty already, or a server adds it
            self._objective_grad = None
        self.decay: WeightDecay | None = None
        self.whole: Callable[[SparseGradient], Array] | None = None
        self.touches = False
        self._recorder = recorder
        self._buffer: Array | None = None
        self._mean = self._tail = np.empty(0)
        self._seen = self.squares = 0.0
        self.segments = self._segments = group_segments(plan)
        self.follow(plan.strategy)
        begin_schedule(plan, state)

    def follow(self, strategy: Strategy) -> None:
        """Go on under a strategy: it decides how much of the batch a gradient is of."""
        self._parts = 1 if strategy.replicated else self._workers
        # Where the gradient is of a rank's part only, but the update of the whole batch, steps are the batch's.
        self._share = self._parts // strategy.updates_a_batch(self._workers)

    def follow_batch_size(self, batch_size: int) -> None:
        """Go on in batches of so many rows: an epoch has as many updates, of which a schedule has to know."""
        follow_pace(self._plan, self._state, batch_size)

    def apply(self, w: Array, g: Array | SparseGradient, state: dict[str, Array], scale: float = 1.0) -> None:
        """Update ``w`` (P,) in place from the gradient sum ``g``, (P + 3,) or sparse, which is used up."""
        begin = self._now()
        where: Array | None = None
        if not isinstance(g, SparseGradient):
            mean = self.mean(w, g)
        elif self.whole is not None:
            mean = self.mean(w, self.whole(g))
        else:
            where = g.entries
            mean = self.mean(w, g.values, penalised=False)
        if mean is not None:
            own = self._state
            optimizer = own.optimizer
            assert optimizer is not None
            if optimizer.clip_norm is not None:
                clip(mean, optimizer.clip_norm)
            own.updates = t = own.updates + 1
            rate = optimizer.rate(t, state, scale)
            if where is not None and self.decay is not None and self.decay.step(w, mean, where, rate):
                self._refuse(w)
            if isinstance(optimizer, LBFGS):
                optimizer.search(w, mean, self._objective(w), state, rate)
            else:
                optimizer.apply(w, mean, state, t, where, rate, self._segments)
            if self._steps is not None and self._steps.l1:
                self._steps.shrink(w, self._seen, rate, state)
        self._recorder.apply += self._now() - begin

    def mean(self, w: Array, g: Array, penalised: bool = True) -> Array | None:
        """Return the gradient of the objective at ``w`` in place of the sum: the mean, with penalty where that is wanted.

        None when the rows of the batch weigh nothing.
        """
        if g is not self._buffer:  # the same buffer each step: its views are made once
            self._buffer, self._mean, self._tail = g, g[:-TAIL], g[-TAIL:]
        loss, weight, rows = self._tail.tolist()
        self._recorder.loss_sum += loss
        self._recorder.weight += weight
        if weight == 0:
            return None
        state, mean = self._state, self._mean
        if self._by_rows or weight == rows:
            state.epoch_loss += loss
            state.epoch_weight += weight
        else:  # an epoch's loss is the mean of its batches' losses, which count by their rows, as in scikit-learn
            state.epoch_loss += loss / weight * rows
            state.epoch_weight += rows
        scale = 1.0 / (rows if self._by_rows else weight)
        if penalised and self._objective_grad is not None:
            squares = self._objective_grad(w, mean, scale)
        else:
            mean *= scale
            squares = float(mean.dot(mean))
        self.squares = squares
        if not isfinite(squares) and self._is_refused(mean):
            return None
        self._seen = state.rows
        state.rows += rows * self._parts
        if self._steps is not None:
            self._steps.apply(mean, self._seen, rows * self._share, weight / rows)
        return mean

    def count(self, loss: float, weight: float, rows: float) -> None:
        """Note the tail of a gradient that was applied elsewhere, as `mean` notes its own."""
        self._recorder.loss_sum += loss
        self._recorder.weight += weight
        state = self._state
        if self._by_rows or weight == rows:
            state.epoch_loss += loss
            state.epoch_weight += weight
        else:
            state.epoch_loss += loss / weight * rows
            state.epoch_weight += rows
        state.rows += rows * self._parts

    def _objective(self, w: Array) -> float:
        """Return the objective whose gradient `mean` has returned last."""
        loss, weight, rows = self._tail.tolist()
        return float(loss / (rows if self._by_rows else weight) + penalty_of(self._model, w))

    def _is_refused(self, mean: Array) -> bool:
        """Whether a gradient over all ranks is not applied; raises NonFinite where the run ends by that."""
        if not self._plan.skips_nonfinite:
            self._refuse(mean)
        return not is_finite(mean)

    def _refuse(self, mean: Array) -> None:
        # The squares of finite float32 numbers may overflow: only a value that is itself not finite counts.
        if not bool((abs(mean) < np.inf).all()):
            raise NonFinite(
                self._world.rank,
                self._world.step,
                "the gradient is not finite",
                "over all ranks' shards of this batch",
                "Divide the learning rate by 10, scale X, or set clip_norm",
            )

    def end_epoch(self) -> None:
        """Tell the schedule the epoch's mean loss."""
        loss, weight = self.epoch_sums()
        if weight:
            state = self._state
            assert state.optimizer is not None
            state.optimizer.observe_epoch(loss / weight, state.arrays)

    def epoch_sums(self) -> tuple[float, float]:
        """Return the losses and the weights summed since the last call."""
        state = self._state
        sums = state.epoch_loss, state.epoch_weight
        state.epoch_loss = state.epoch_weight = 0.0
        return sums
