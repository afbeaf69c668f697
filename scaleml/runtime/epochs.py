"""Epoch ends: what a training rank knows of an epoch that is just over."""

from __future__ import annotations

import numpy as np

from scaleml.arrays import Array, to_numpy
from scaleml.devices import host_copy
from scaleml.runtime.training_rank import TrainingRank


def newest(rank: TrainingRank) -> tuple[int, float, float, bool]:
    """Return number, loss, score and whether it is the last, of the epoch that is just over."""
    seen = rank.state.stopping
    return len(seen.losses), seen.losses[-1], seen.scores[-1] if seen.scores else np.nan, seen.converged


def current(rank: TrainingRank) -> Array:
    """Return the parameters that a run would give out now."""
    state, kept = rank.state, rank.evaluation.kept
    if rank.has_servers:
        assert kept is not None
        return to_numpy(kept)
    assert state.optimizer is not None
    return host_copy(state.optimizer.result(rank.w, state.arrays, state.updates))
