"""The model's buffers on a rank that trains: followed from the train state, agreed on by all ranks, kept for whoever goes on."""

from __future__ import annotations

from typing import final

from scaleml.comm.communicator import Communicator
from scaleml.models.buffers import Buffers
from scaleml.models.flat_model import Buffered, FlatModel
from scaleml.runtime.train_state import TrainState

__all__ = ["ModelBuffers"]


@final
class ModelBuffers:
    """What a rank does with the buffers of its copy of the model: nothing where that has none.

    Parameters
    ----------
    model : FlatModel
        This rank's.
    group : Communicator
        The ranks that train.
    state : TrainState
        Whose buffers are those of a snapshot, or of the start: where there are none, the model's first.
    """

    def __init__(self, model: FlatModel, group: Communicator, state: TrainState) -> None:
        self._group, self._state = group, state
        self._model = model if isinstance(model, Buffered) and len(model.first_buffers()) else None
        if self._model is not None and state.buffers is None:
            state.buffers = self._model.first_buffers()

    def now(self) -> Buffers | None:
        """Return those of the model as they are now."""
        return None if self._model is None else self._model.buffers()

    def follow(self) -> None:
        """Have the model hold those of the train state."""
        if self._model is not None and self._state.buffers is not None:
            self._model.set_buffers(self._state.buffers)

    def agree(self) -> None:
        """Have all ranks hold the same, by the model's rule; collective. What is the same already stays so to the bit."""
        model, group = self._model, self._group
        if model is None or group.size == 1 or model.buffer_rule == "local":
            return
        mine = model.buffers()
        if model.buffer_rule == "rank0":
            for vector in (mine.values, mine.counts):
                if len(vector):
                    group.broadcast(vector)
            model.set_buffers(mine)
            return
        values, counts = (
            group.allgather(vector) if len(vector) else vector[None] for vector in (mine.values, mine.counts)
        )
        model.set_buffers(Buffers.mean(values, counts))

    @property
    def are_good(self) -> bool:
        """Whether no batch has left anything in them that is no number."""
        return self._model is None or self._model.buffers().are_as_finite_as(self._model.first_buffers())
