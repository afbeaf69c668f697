"""A rank's device: where its vectors and its batches lie, and through what its ranks then talk.

Where servers or all ranks together hold the parameters, these lie in the processor's memory, through which they travel: then only
batches and the computation of gradients are on the GPU. Elsewhere all of a rank's vectors are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, final

from scaleml.arrays import Array
from scaleml.comm.communicator import Communicator
from scaleml.comm.nccl import NcclCommunicator, join
from scaleml.comm.staged import StagedCommunicator
from scaleml.data.batches import Batches
from scaleml.data.device_batches import batches_on
from scaleml.data.piece import Arrays
from scaleml.data.stream import Stream
from scaleml.devices import HOST, Cuda, Device, Host, opened
from scaleml.models.on_devices import Foreign, Skipping
from scaleml.runtime.device_gradient import FetchedGradient, QueuedGradient
from scaleml.runtime.gradient import Gradient
from scaleml.runtime.optimizer_step import OptimizerStep
from scaleml.runtime.plan import Plan
from scaleml.runtime.queued_step import AnyStep, QueuedStep
from scaleml.runtime.step_ring import StepRing
from scaleml.runtime.train_state import TrainState
from scaleml.telemetry.recorder import Recorder

_SHARE: Final = 0.5
"""Of the free memory of a GPU, by how many ranks it has, that their data may take."""


@final
class RankDevice:
    """What a rank that trains has of a GPU, or of none.

    Parameters
    ----------
    plan : Plan
        The run.
    rank : int

    Attributes
    ----------
    device : Device
        Where batches and gradients are.
    vectors : Device
        Where the vectors are.
    """

    def __init__(self, plan: Plan, rank: int) -> None:
        self._plan = plan
        self._gpu = plan.gpu(rank)
        self.device: Host | Cuda = opened(self._gpu)
        keeps = plan.layout.servers or plan.strategy.shares_memory
        self.vectors: Device = HOST if keeps else self.device
        self._nccl: NcclCommunicator | None = None
        self._recorder: Recorder | None = None

    def around(self, world: Communicator) -> Communicator:
        """Return what takes this rank's vectors: `world`, or it and the GPU; collective."""
        if self.vectors.is_host:
            return world
        staged = StagedCommunicator(world, self.device)
        if self._plan.uses_nccl and isinstance(self.device, Cuda):
            self._nccl = join(staged, self.device)
            return self._nccl
        return staged

    @property
    def uses_nccl(self) -> bool:
        """Whether the rank's sums go by NCCL."""
        return self._nccl is not None

    def part(self) -> None:
        """At the end of a run that has come to it: let nobody leave NCCL whom another one's GPU still hears; collective."""
        if self._nccl is not None:
            self.device.synchronize()
            self._nccl.barrier()

    def release(self) -> None:
        """Give back what was taken of a GPU, whatever it waits for."""
        if self._nccl is not None:
            self._nccl.give_up()
        if self._recorder is not None:
            self._recorder.before_row = None  # it outlives the rank, and would keep its vectors
        try:
            if isinstance(self._plan.model, Foreign):
                self._plan.model.release()
        finally:
            self.device.release()

    def batches(self, batches: Batches) -> Batches:
        """Return the rank's batches on the device."""
        if not isinstance(self.device, Cuda):
            return batches
        sharing = sum(gpu is not None and gpu.identity == self.device.gpu.identity for gpu in self._plan.gpus)
        room, model = _SHARE * self.device.free_bytes() / max(1, sharing), self._plan.model
        if isinstance(model, Skipping) and model.may_skip_rows:
            return batches_on(self.device, batches, room, model.counts_all)
        return batches_on(self.device, batches, room)

    def held_out(self, rows: Arrays | Stream | None) -> Iterator[Arrays]:
        """Yield held-out rows on the device; those that are read from disk a block at a time."""
        put = self.device.put
        for x, y, weights in rows.blocks() if isinstance(rows, Stream) else [] if rows is None else [rows]:
            yield put(x), put(y), None if weights is None else put(weights)

    def computing(
        self, gradients: Gradient, optimizer: OptimizerStep, world: Communicator, state: TrainState, recorder: Recorder
    ) -> tuple[Callable[..., Array], AnyStep]:
        """Return what computes a gradient, and what applies it."""
        plan, device = self._plan, self.device
        if device.is_host:
            return gradients.compute, optimizer
        if self.vectors.is_host:
            return FetchedGradient(plan, gradients, device).compute, optimizer
        if plan.steps is not None or plan.optimizer.takes_all_rows:  # decide by what they see, at each step
            return gradients.compute, optimizer
        ring = StepRing(device.xp, plan.model.dtype)
        waits = isinstance(world, StagedCommunicator) and world.size > 1  # else a sum would seem to take its time
        queued = QueuedGradient(plan, gradients, ring, device, waits)
        self._recorder = recorder
        step = QueuedStep(plan, world, state, recorder, optimizer, gradients, queued, ring, device)
        return queued.compute, step
