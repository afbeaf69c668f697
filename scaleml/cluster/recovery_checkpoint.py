"""Recovery from a checkpoint: where no rank has kept a point that all can go on from, they begin from the newest good one."""

from __future__ import annotations

import logging
from dataclasses import replace

from scaleml.checkpoint import CheckpointError
from scaleml.checkpoint.catalog import newest
from scaleml.cluster.recovery import WayOn
from scaleml.runtime.plan import Plan
from scaleml.runtime.restart import origin_of
from scaleml.runtime.serialization import strategy_from

_log = logging.getLogger(__name__)


def from_checkpoint(way: WayOn, plan: Plan, *, any_ranks: bool = False) -> tuple[WayOn, Plan]:
    """Return from where ranks go on, and their plan: unchanged where they kept points, or there is no checkpoint.

    It has to be of as many ranks, unless ``any_ranks`` will do.
    """
    if way.step >= 0:
        return way, plan
    origin, strategy = plan.origin, plan.strategy
    if plan.saving is not None:
        try:
            found = newest(plan.saving.url, plan.saving.run)
        except CheckpointError as error:
            _log.info("no checkpoint of this run to go on from: %s", error)
        else:
            about = found.manifest.about
            origin, strategy = origin_of(found, about["commands"]), strategy_from(about["strategy"])
    workers = plan.layout.workers
    if origin is None or (origin.ranks != workers and not any_ranks) or strategy.layout(workers) != plan.layout:
        return way, plan
    return replace(way, step=origin.step, commands=origin.commands), replace(plan, origin=origin, strategy=strategy)
