"""The optimizer step on a GPU: queued, with a look at losses and norms only when telemetry is due."""

from __future__ import annotations

from math import isfinite
from typing import Final, final

from scaleml.arrays import Array
from scaleml.comm import CommError
from scaleml.comm.communicator import Communicator
from scaleml.comm.nccl import NcclCommunicator
from scaleml.devices import Device
from scaleml.models.flat_model import Penalised
from scaleml.optim.clipping import clip_queued
from scaleml.runtime.device_gradient import QueuedGradient
from scaleml.runtime.errors import NonFinite
from scaleml.runtime.gradient import TAIL, Gradient
from scaleml.runtime.optimizer_step import OptimizerStep
from scaleml.runtime.plan import Plan
from scaleml.runtime.step_ring import Step, StepRing
from scaleml.runtime.train_state import TrainState
from scaleml.runtime.weight_decay import WeightDecay
from scaleml.strategies import Strategy
from scaleml.strategies.context import SparseGradient
from scaleml.telemetry.recorder import Recorder

INTERVAL: Final = 0.05
"""Seconds of training between two rows of the history: each has the host wait for the GPU."""


@final
class QueuedStep:
    """Applies gradients to a rank's state; what `OptimizerStep` does, with the same bits, but later as to what it says.

    What is not finite is refused when telemetry is due: by then the parameters are not finite either, and those of the last look
    are kept (`last_good`). Batches whose rows may weigh nothing are looked at each step.

    Parameters
    ----------
    plan, world, state, recorder
        As for `OptimizerStep`.
    base : OptimizerStep
        What counts, and what applies gradients that are to be looked at.
    gradients : Gradient
    queued : QueuedGradient
        Where gradients come from.
    ring : StepRing
        Where their figures wait.
    device : Device

    Attributes
    ----------
    squares : float or array of no dimensions
        The squared norm of the gradient that was applied last.
    last_good : (P,) array
        The parameters at the last look.
    """

    decay: Final[WeightDecay | None] = None
    touches: Final = False

    def __init__(
        self,
        plan: Plan,
        world: Communicator,
        state: TrainState,
        recorder: Recorder,
        base: OptimizerStep,
        gradients: Gradient,
        queued: QueuedGradient,
        ring: StepRing,
        device: Device,
    ) -> None:
        self.squares: float | Array = 0.0
        self.last_good: Array | None = state.params.copy()
        self._base = base
        self._world = world
        self._state = state
        self._recorder = recorder
        self._gradients = gradients
        self._queued = queued
        self._ring = ring
        self._device = device
        self._now = world.clock.now
        self._objective_grad = plan.model.objective_grad if isinstance(plan.model, Penalised) else None
        self._by_rows = plan.by_rows
        self._buffer: Array | None = None
        self._mean = self._tail = self._divisor = self._factor = device.xp.empty(1, plan.model.dtype)
        recorder.interval = INTERVAL
        recorder.before_row = self.look

    def follow(self, strategy: Strategy) -> None:
        """See `OptimizerStep.follow`."""
        self.look()
        self._base.follow(strategy)

    def follow_batch_size(self, batch_size: int) -> None:
        """See `OptimizerStep.follow_batch_size`."""
        self._base.follow_batch_size(batch_size)

    def apply(self, w: Array, g: Array | SparseGradient, state: dict[str, Array], scale: float = 1.0) -> None:
        """Update ``w`` (P,) in place from the gradient sum ``g``, (P + 3,), which is used up."""
        assert not isinstance(g, SparseGradient), "sparse gradients are of the processor's memory"
        if not self._queued.is_sure:  # the rows of the batch may weigh nothing: then there is no update
            self.look()
            self._wait()
            self._base.apply(w, g, state, scale)
            self.squares = self._base.squares
            return
        begin = self._now()
        own, xp = self._state, self._device.xp
        optimizer = own.optimizer
        assert optimizer is not None
        if g is not self._buffer:  # the same buffer each step: its views are made once
            self._buffer, self._mean, self._tail = g, g[:-TAIL], g[-TAIL:]
            self._divisor = self._tail[2:] if self._by_rows else self._tail[1:2]
        mean, factor = self._mean, self._factor
        xp.divide(1, self._divisor, out=factor)
        if self._objective_grad is not None:
            squares: Array | float = self._objective_grad(w, mean, factor)
        else:
            mean *= factor
            squares = mean.dot(mean)
        self._ring.write(self._world.stamps.step, self._tail, squares)
        self.squares = squares
        if optimizer.clip_norm is not None:
            clip_queued(mean, squares, optimizer.clip_norm)
        own.updates = t = own.updates + 1
        optimizer.apply(w, mean, state, t, None, optimizer.rate(t, state, scale), self._base.segments)
        self._recorder.apply += self._now() - begin
        if self._ring.is_full:
            self.look()

    def look(self) -> float:
        """Wait for the GPU, and take in what its steps were; what is not finite is refused. Returns for how many seconds."""
        if not len(self._ring):
            return 0.0
        begin = self._now()
        self._wait()
        seconds = self._now() - begin
        self._recorder.compute += seconds
        for step in self._ring.taken():
            if not (isfinite(step.loss) and isfinite(step.squares)):
                raise self._refusal(step)
            self._base.count(step.loss, step.weight, step.rows)
        assert self.last_good is not None
        self.last_good[...] = self._state.params
        return seconds

    def _wait(self) -> None:
        world = self._world
        if not isinstance(world, NcclCommunicator):
            self._device.synchronize()
            return
        try:
            self._device.wait(world.check, world.clock.sleep)
        except CommError:
            world.give_up()  # or whoever copies the last good parameters would wait, too
            raise

    def _refusal(self, step: Step) -> NonFinite:
        if not isfinite(step.own_loss):
            return self._gradients.non_finite(step.own_loss, self._gradients.batches.owned, step.number)
        if not isfinite(step.loss):
            what, where = f"the loss is {step.loss}", "over other ranks' shards of this batch"
        else:
            what, where = "the gradient is not finite", "over all ranks' shards of this batch"
        return NonFinite(
            self._world.rank, step.number, what, where, "Divide the learning rate by 10, scale X, or set clip_norm"
        )

    def end_epoch(self) -> None:
        """See `OptimizerStep.end_epoch`: only one schedule wants to know the loss."""
        assert self._state.optimizer is not None
        if self._state.optimizer.schedule == "adaptive":
            self.look()
            self._base.end_epoch()

    def epoch_sums(self) -> tuple[float, float]:
        """See `OptimizerStep.epoch_sums`."""
        self.look()
        return self._base.epoch_sums()


AnyStep = OptimizerStep | QueuedStep
"""What applies gradients on a rank that trains."""
