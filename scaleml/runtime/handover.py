"""Handing over: what a generation of ranks leaves to the next, which goes on with another strategy and other roles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from scaleml.compression.base import forget
from scaleml.runtime.plan import Handover, Outcome, Plan, Start

if TYPE_CHECKING:
    from scaleml.runtime.training_loop import TrainingLoop


def hand_over(loop: TrainingLoop) -> Handover | None:
    """Agree with the other training ranks on where the run is; None if it has come to its end instead. Collective."""
    together = loop.pace is None
    if together and not loop.switching:
        return None
    before = loop.plan.handover
    samples = loop.recorder.samples - (0 if before is None else before.samples)
    # Ranks with a pace of their own need not all have heard of it, nor have gone equally far.
    mine = np.array([loop.switching, samples, loop.step, loop.optimizer.rows], np.float64)
    ranks = loop.workers.allgather(mine)
    rows = loop.rows_done if together else int(ranks[:, 1].sum()) + (0 if before is None else before.rows)
    if not ranks[:, 0].any() or rows >= loop.plan.rows * loop.plan.epochs:
        return None
    if loop.servers is None:
        level(loop)
    step = int(ranks[:, 2].max())
    return Handover(
        start=Start(np.array(loop.w), loop.state, loop.optimizer.t, float(ranks[:, 3].max())),
        rows=rows,
        step=step,
        samples=loop.recorder.samples,
        clock=loop.recorder.last,
        optimizer=loop.optimizer.optimizer,
        batch_size=loop.batch_size,
        faults=loop.suffering.left(loop.step, step),
        commands=loop.group.control,
    )


def level(loop: TrainingLoop) -> None:
    """Leave nothing in the optimizer's state but its own arrays, the same on all ranks that train: the mean, where they differ."""
    loop.strategy.end(loop.state)
    forget(loop.state)
    if not loop.strategy.replicated:
        for array in (array for name, array in loop.state.items() if name != "schedule"):
            loop.mean(array)


def resume_from(plan: Plan, before: Sequence[Outcome]) -> Plan:
    """Return a rank's plan, given the outcomes of the training rank that it follows and of the servers, if there were some."""
    if not before:
        return plan
    first, *servers = before
    handover = first.handover
    assert handover is not None
    start = handover.start
    if servers:
        ends = [server.end for server in servers]
        start = replace(_joined(ends), rows=start.rows)
    handover = replace(handover, start=start)
    return replace(
        plan,
        start=start,
        optimizer=handover.optimizer,
        batch_size=handover.batch_size,
        faults=handover.faults,
        handover=handover,
    )


def _joined(ends: Sequence[Any]) -> Start:
    """Return servers' slices as a whole."""
    state = {name: np.concatenate([end.state[name] for end in ends]) for name in ends[0].state}
    return Start(np.concatenate([end.params for end in ends]), state, max(end.updates for end in ends))
