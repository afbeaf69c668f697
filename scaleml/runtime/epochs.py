"""Epoch ends: what a loop knows of an epoch that is just over."""

from __future__ import annotations

from typing import Any

import numpy as np

from scaleml.runtime.training_loop import TrainingLoop


def newest(loop: TrainingLoop) -> tuple[int, float, float, bool]:
    """Return number, loss, score and whether it is the last, of the epoch that is just over."""
    progress = loop.progress
    score = progress.scores[-1] if progress.scores else np.nan
    return len(progress.losses), progress.losses[-1], score, progress.converged


def current(loop: TrainingLoop) -> Any:
    """Return the parameters that a run would give out now."""
    if loop.servers is not None:
        return loop.last_evaluated
    return np.array(loop.optimizer.optimizer.result(loop.w, loop.state, loop.optimizer.t))
