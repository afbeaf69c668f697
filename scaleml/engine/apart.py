"""Training without steps in common: each rank at its own pace, with parameter servers or with neighbours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from scaleml.engine.worker_loop import WorkerLoop


def train_apart(loop: WorkerLoop) -> None:
    """Train until the servers, or rank 0 where there are none, say that the run has had its rows; then agree."""
    others = loop.servers or loop.neighbours
    while not others.done and not loop.progress.converged:
        if loop.is_told_to_stop():
            break
        loop.take_step()
        _catch_up(loop, others)
    others.leave()
    _catch_up(loop, others)
    if loop.servers is None:
        loop.mean(loop.w)
        return
    if loop.group.rank == 0:
        loop.servers.collect(loop.w)
    loop.workers.broadcast(loop.w)


def _catch_up(loop: WorkerLoop, others: Any) -> None:
    """Take part in the evaluations that are due: all workers do, on rank 0's parameters; without servers, on the mean."""
    evaluation = loop.evaluation
    while evaluation.done < others.evaluations_due:
        loop.note()
        if loop.servers is not None:
            evaluation.of_rank_0(loop.w, loop.step)
        else:
            evaluation.aside(others.settle)
            evaluation.at(evaluation.aside(lambda: loop.mean(np.array(loop.w))), loop.step)
        if loop.plan.stop is not None and not loop.progress.converged:
            loop.progress.decide(evaluation.kept, loop.state, shared=False, epochs=1)
