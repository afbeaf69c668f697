"""Schedule place: where in the run an optimizer is whose learning rate goes with it, and how many updates an epoch has."""

from __future__ import annotations

from scaleml.runtime.plan import Plan
from scaleml.runtime.train_state import TrainState


def begin_schedule(plan: Plan, state: TrainState, parts: int = 1) -> None:
    """Tell the optimizer of a state where its generation of ranks begins; ``parts`` is how often it updates in a batch.

    A run begins its schedule anew, unless it goes on from ranks of its own.
    """
    assert state.optimizer is not None
    array = state.arrays.get("schedule")
    if array is not None and not plan.resumed and state.optimizer.schedule != "adaptive":
        array[:] = 0
    follow_pace(plan, state, state.batch_size or plan.batch_size, parts)


def follow_pace(plan: Plan, state: TrainState, batch_size: int, parts: int = 1) -> None:
    """Tell the optimizer of a rank that trains, or of a server where its run begins, what the batch size makes of an epoch."""
    assert state.optimizer is not None
    epoch, consumed = divmod(state.consumed, plan.rows)
    whole, left = -(-plan.rows // batch_size), -(-(plan.rows - consumed) // batch_size)
    done = epoch + 1 - left / whole  # so that the epoch ends with its last update
    state.optimizer.follow_run(
        state.arrays, updates=state.updates, done=done, pace=whole * parts, epochs=float(plan.epochs)
    )


def follow_servers_pace(plan: Plan, state: TrainState, batch_size: int, parts: int) -> None:
    """Tell the optimizer of a server, which counts updates and not rows, of another batch size in mid-run."""
    assert state.optimizer is not None
    pace = -(-plan.rows // batch_size) * parts
    state.optimizer.follow_run(state.arrays, updates=state.updates, done=None, pace=pace)
