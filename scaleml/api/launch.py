"""Launching: from checked settings and placed data to a run on workers."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from distributed import Client

from scaleml.api.checkpoints import with_checkpoints
from scaleml.api.command_sender import CommandSender
from scaleml.api.device_choice import choose_gpus
from scaleml.api.run import Run
from scaleml.api.run_facts import RunFacts
from scaleml.api.scoring import baseline_score, score_name, score_rule
from scaleml.api.settings import Settings
from scaleml.api.trained_model import TrainedModel
from scaleml.api.validation import ClusterFacts, check_run, check_shards
from scaleml.checks import hint
from scaleml.clock import WALL
from scaleml.cluster import calls
from scaleml.cluster.device_facts import gpus_of
from scaleml.cluster.driver import Driver
from scaleml.cluster.host_facts import hosts_of
from scaleml.cluster.placement import Placement, Workers, candidates, place, range_of
from scaleml.cluster.shrinking import WorkerRange
from scaleml.cluster.staging.training_data import TrainingData
from scaleml.escaping import printable
from scaleml.models.on_devices import Foreign
from scaleml.runtime.plan import Plan
from scaleml.runtime.stop_rule import StopRule

_log = logging.getLogger(__name__)


def launch(
    settings: Settings,
    data: TrainingData,
    client: Client,
    own_cluster: bool,
    workers: Workers,
    check: Callable[[Plan], None] | None = None,
) -> Run:
    """Start a run on data that is already placed; ``check`` may refuse its plan before anything is written or sent."""
    began = WALL.now()
    plan, placement = prepare(settings, data, client, own_cluster, workers)
    if check is not None:
        check(plan)
    plan = with_checkpoints(plan, placement, settings, data, client)
    training = placement.addresses[: placement.layout.workers]
    data.placed.bring(client, training, len(plan.shard_sizes), plan.opened)
    cores = {facts["boot"]: facts["cores"] for facts in hosts_of(client, placement.workers).values()}
    facts = RunFacts(
        label=settings.label or repr(settings.strategy),
        trained=partial(TrainedModel.of_run, data.network, data.signature, data.classes, feature_names=data.names),
        hosts=len(cores),
        cores=sum(cores.values()),
        placing_seconds=data.placing_seconds + WALL.now() - began,
        own_cluster=own_cluster,
        place=settings.place,
        score_name=score_name(plan.score, data.network),
        baseline_score=baseline_score(plan.score, data.network, data.classes, data.tally),
        fitted=settings.fitted,
        advice=data.advice,
    )
    for words in data.placed.irreparable if plan.replaces_lost else ():
        hint(words)
    allowed = allowed_workers(workers, settings.on_worker_lost, placement.layout.workers)
    driver = Driver(client, plan, placement, data.placed, allowed)
    sender = CommandSender(driver, is_own=own_cluster)
    run = Run(driver, facts, sender)
    run.when_over(sender.elastic.close)
    _log.info(
        "run %s: %s, %s; data placed in %.2f s",
        *(driver.name, printable(facts.label), run.settings, facts.placing_seconds),
    )
    driver.start(run.on_change)
    sender.elastic.start()
    return run


def prepare(
    settings: Settings, data: TrainingData, client: Client, own_cluster: bool, workers: Workers
) -> tuple[Plan, Placement]:
    """Return what a run would be on the cluster as it is now.

    Raises
    ------
    ValueError, TypeError, StartFailed
        For what does not fit it: see `scaleml.api.validation`.
    """
    info = calls.identity(client)
    chosen = candidates(info, workers, own_cluster)
    chosen = data.placed.nearest(chosen, settings.strategy.layout(len(chosen)).workers)
    placement = place(settings.strategy, chosen, info)
    training = placement.layout.workers
    between = range_of(workers)
    most = None if between is None else min(between[1], data.rows)
    shards = check_shards(settings.shards or most, data.rows, training)
    optimizer, stop = settings.optimizer, settings.stop
    batch_size = min(int(settings.batch_size), data.rows)
    part_rows = None if settings.microbatch is None else training * int(settings.microbatch)
    if optimizer.takes_all_rows:
        batch_size, part_rows = data.rows, min(training * data.rows_at_once, part_rows or data.rows)
        stop = StopRule(tol=None) if stop is None else stop  # it says itself when it has converged
    rows = max(1, batch_size // settings.strategy.updates_a_batch(training))
    if settings.scoring is not None and data.placed.held_out is None:
        raise ValueError(f"scoring={settings.scoring!r}, but no rows are held out to score: pass validation=0.2, say")
    cluster = ClusterFacts.of(client, info, placement, is_own=own_cluster)
    watched = data.placed.held_out is not None or stop is not None
    watched = watched or (settings.checkpoint is not None and not settings.strategy.synchronous)
    plan = Plan(
        model=data.network,
        strategy=settings.strategy,
        optimizer=optimizer,
        layout=placement.layout,
        shard_sizes=tuple(data.rows * (s + 1) // shards - data.rows * s // shards for s in range(shards)),
        epochs=int(settings.epochs),
        batch_size=batch_size,
        seed=int(settings.seed),
        dtype=data.signature.dtype,
        evaluate_every=max(1, data.rows // settings.evaluations_an_epoch) if watched else 0,
        faults=tuple(settings.faults),
        stop=stop,
        start=settings.begin,
        steps=None if settings.steps is None else settings.steps(rows),
        part_rows=part_rows,
        keep_end=settings.keep_end,
        nonzeros=data.placed.train.nonzeros,
        one_memory=cluster.share_memory(placement),
        snapshots=settings.snapshots,
        augment=tuple(settings.model.augment),
        by_rows=settings.by_rows,
        replaces_lost=settings.on_worker_lost != "raise",
        skips_nonfinite=settings.on_nonfinite == "skip",
        score=score_rule(settings.scoring, data.network, data.classes, data.signature),
    )
    see = partial(gpus_of, client, cluster.hosts, plan.model.framework if isinstance(plan.model, Foreign) else "")
    plan = replace(plan, gpus=choose_gpus(settings.device, plan, placement.addresses, cluster.hosts, see))
    check_run(plan, placement, data.placed, cluster)
    return plan, placement


def allowed_workers(workers: Workers, on_worker_lost: str, ranks: int) -> WorkerRange:
    """Return with how many ranks a run that starts with these may go on."""
    between = range_of(workers)
    if between is not None:
        return WorkerRange(*between, shrinks=on_worker_lost != "raise", grows=True)
    return WorkerRange.fixed(ranks, shrinks=on_worker_lost == "shrink")
