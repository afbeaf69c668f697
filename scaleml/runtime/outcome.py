"""What a training rank leaves behind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from scaleml.runtime.handover import hand_over
from scaleml.runtime.plan import Outcome, Start

if TYPE_CHECKING:
    from scaleml.runtime.training_loop import TrainingLoop


def outcome_of(loop: TrainingLoop) -> Outcome:
    """Return how a rank ended that came to its end; collective where others go on, or ranks keep averages of their own."""
    progress, update = loop.progress, loop.optimizer
    with_servers = loop.servers is not None
    # ParameterServerClient hand over what their optimizer gives out.
    params = np.array(loop.w) if with_servers else _result(loop)
    end = Start(np.array(loop.w), loop.state, update.t, update.rows) if loop.plan.keep_end else None
    epochs = loop.epoch
    if loop.pace is not None:
        epochs = len(progress.losses) if progress.converged else loop.plan.epochs
    handover = hand_over(loop)
    return Outcome(
        "stopped" if loop.stopping else "finished" if handover is None else "switched",
        loop.step,
        params=params if progress.best is None else progress.best,
        epochs=epochs,
        losses=tuple(progress.losses),
        scores=tuple(progress.scores),
        widest=None if loop.pace is None else loop.pace.widest,
        end=end,
        handover=handover,
    )


def _result(loop: TrainingLoop) -> Any:
    """Return the parameters to give out; averages that each rank took of its own way are averaged over the ranks."""
    result = np.array(loop.optimizer.optimizer.result(loop.w, loop.state, loop.optimizer.t))
    if "average" in loop.state and not loop.strategy.replicated and loop.group.size > 1:
        loop.group.allreduce(result)
        result /= loop.group.size
    return result
