"""Training without steps in common: each rank at its own pace, with servers, with neighbours, or on one shared vector."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scaleml.runtime.coordinator import Pace

if TYPE_CHECKING:
    from scaleml.runtime.training_loop import TrainingLoop


def train_asynchronously(loop: TrainingLoop, pace: Pace) -> None:
    """Train until the run has had its rows, at this rank's own pace; then agree with the others."""
    while not pace.done and not loop.progress.converged:
        if loop.is_told_to_leave():
            break
        loop.take_step()
        pace.stepped(loop.gradients.last_rows)
        _catch_up(loop, pace)
        while pace.held:  # called away from its waiting
            pace.wait(loop.w)
            _catch_up(loop, pace)
    _obey_earlier(loop)
    while not pace.leave(loop.w):
        _catch_up(loop, pace)
        loop.is_told_to_leave()
    _catch_up(loop, pace)
    pace.collect(loop.w, loop.workers)


def _catch_up(loop: TrainingLoop, pace: Pace) -> None:
    """Take part in the evaluations that are due: all ranks that train do, on the same parameters."""
    evaluation = loop.evaluation
    while evaluation.done < pace.evaluations_due:
        _obey_earlier(loop)
        loop.note()
        evaluation.at(evaluation.aside(lambda: pace.agreed(loop.w, loop.workers)), loop.step)
        if loop.plan.stop is not None and not loop.progress.converged:
            loop.decide(evaluation.kept, shared=False, epochs=1)


def _obey_earlier(loop: TrainingLoop) -> None:
    """Do what rank 0 announced before it said that what comes now is due: both are collective, and come in its order."""
    if loop.group.rank:
        loop.is_told_to_leave()
