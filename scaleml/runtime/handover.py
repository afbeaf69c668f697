"""The hand-over: ranks that others follow, under a strategy with other roles, agree on the state that they leave."""

from __future__ import annotations

import numpy as np

from scaleml.runtime.train_state import TrainState
from scaleml.runtime.training_rank import TrainingRank


def hand_over(rank: TrainingRank) -> TrainState | None:
    """Return the state that the next rank in this place goes on from; None if the run has come to its end instead. Collective."""
    together, plan = rank.coordinator is None, rank.plan
    if together and not rank.switching:
        return None
    before = plan.start if plan.resumed else None
    state = rank.state
    samples = rank.recorder.samples - (0 if before is None else before.samples)
    # Ranks with a pace of their own need not all have heard of it, nor have gone equally far.
    mine = np.array([rank.switching, samples, state.step, state.rows, state.updates, rank.recorder.samples], np.float64)
    ranks = rank.group.allgather(mine)
    consumed = state.consumed if together else int(ranks[:, 1].sum()) + (0 if before is None else before.consumed)
    if not ranks[:, 0].any() or consumed >= plan.rows * plan.epochs:
        return None
    if not rank.has_servers:
        rank.average_private(goes_on=rank.changing)
    step = int(ranks[:, 2].max())
    faults = rank.faults.left(state.step, step)
    handed = rank.snapshot()
    handed.consumed, handed.step, handed.rows, handed.faults = consumed, step, float(ranks[:, 3].max()), faults
    handed.updates = int(ranks[:, 4].max())  # the same on all ranks: the next learning rate depends on it
    handed.counted = (*ranks[:, 5].astype(int).tolist(), *state.counted[len(ranks) :])
    handed.commands = rank.world.control
    return handed
