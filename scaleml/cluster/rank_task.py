"""The rank's task: one pinned, long-running Dask task around a loop that knows nothing of Dask."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

from distributed import Worker, get_worker
from distributed.system import MEMORY_LIMIT
from distributed.worker import secede

from scaleml import comm
from scaleml.cluster.endpoint import Endpoint, release_endpoint, take_endpoint
from scaleml.cluster.events import Arrived, Left, RankFailed
from scaleml.cluster.parked_ranks import end_of, forget_former, park
from scaleml.cluster.rank_links import connect
from scaleml.cluster.rank_spec import RankSpec
from scaleml.cluster.reporter import Reporter
from scaleml.comm import CommError
from scaleml.data.augmented_batches import AugmentedBatches
from scaleml.data.batches import AnyShard, Batches, Schedule, opened
from scaleml.data.dataset_shard import DatasetShard
from scaleml.models.flat_model import OfModule
from scaleml.owned_files import sweep
from scaleml.runtime.blas_threads import pinned
from scaleml.runtime.epochs import current, newest
from scaleml.runtime.errors import NonFinite, forget_traceback
from scaleml.runtime.freed_memory import kept_freed_memory
from scaleml.runtime.outcome import Outcome, recover_from, resume_from
from scaleml.runtime.parameter_server.server_loop import ServerLoop
from scaleml.runtime.plan import Plan
from scaleml.runtime.rank_change import Bequest, follow_change
from scaleml.runtime.restart import begin_from
from scaleml.runtime.training_loop import TrainingLoop
from scaleml.runtime.training_rank import TrainingRank
from scaleml.telemetry.recorder import Recorder


def rank_main(
    plan: Plan,
    spec: RankSpec,
    shards: Sequence[AnyShard],
    held_out: Sequence[AnyShard],
    before: Sequence[Outcome] = (),
) -> Outcome | None:
    """Run one rank to its end; never raises, for Dask would run it again or log what the supervisor knows already.

    Parameters
    ----------
    before : sequence of Outcome
        Of the training rank that this one follows and of the servers, where ranks have handed over; after a loss, of the one that
        has what this rank goes on from.

    Returns
    -------
    Outcome or None
        None when this process has no endpoint for the rank: a task of a generation that is over.
    """
    endpoint = take_endpoint(spec.key, spec.nonce)
    if endpoint is None:
        return None
    for command in () if spec.recovered is None else spec.recovered.commands:
        endpoint.commands.put(command)
    worker = get_worker()
    awaited = None if spec.recovered is None else spec.recovered.reached
    reporter = Reporter(worker, spec.task, endpoint, timeout=spec.comm_timeout, awaited=awaited)
    outcome: Outcome | None = None
    try:
        secede()
        reporter.send(Arrived(spec.rank))
        sweep()
        keeping = kept_freed_memory() if isinstance(plan.model, OfModule) else nullcontext()
        with pinned(spec.threads), keeping:
            outcome = _train(*_begins(plan, spec, before), spec, endpoint, reporter, worker, shards, held_out)
    except Exception as error:  # noqa: BLE001  whatever it is, the supervisor is to know
        outcome = Outcome("failed", 0, error=_words(error), trace=traceback.format_exc())
        reporter.send(_failure(spec.rank, 0, error))
    finally:
        if outcome is not None and (outcome.status == "suspended" or not reporter.is_wanted):
            park(
                spec.key, outcome, worker, spec.client_timeout
            )  # first: a rank that is neither living nor parked is lost
        release_endpoint(spec.key)
        endpoint.listener.close()
        sweep()
        reporter.stop()
    end = end_of(outcome)
    reporter.send(Left(spec.rank, end.status, end.step, end.points, end.standing))
    return outcome


def _begins(plan: Plan, spec: RankSpec, before: Sequence[Outcome]) -> tuple[Plan, Bequest | None]:
    if spec.recovered is None:
        plan = resume_from(plan, before)
    else:
        trained = None if spec.change is None else spec.change.before
        plan = recover_from(plan, spec.recovered, before[0] if before else None, trained)
    if not before and plan.origin is not None:
        plan = begin_from(plan, spec.rank)
    return (plan, None) if spec.change is None else follow_change(plan, spec.change, spec.rank, spec.recovered, before)


def _train(
    plan: Plan,
    bequest: Bequest | None,
    spec: RankSpec,
    endpoint: Endpoint,
    reporter: Reporter,
    worker: Worker,
    shards: Sequence[AnyShard],
    held_out: Sequence[AnyShard],
) -> Outcome:
    with (
        connect(spec, endpoint, reporter, worker) as group,
        opened(
            shards,
            held_out,
            _budget(spec, worker, shards, held_out),
            passes=_passes(plan),
            room=_room(spec, plan, worker),
            parts=plan.owned(spec.rank),
        ) as data,
    ):
        endpoint.attach(group)
        forget_former(spec.run, spec.generation)  # all have what they go on from
        recorder = Recorder(spec.rank, group.meter)
        reporter.listen_to(recorder)
        loop: TrainingLoop | ServerLoop
        if plan.layout.is_server(spec.rank):
            loop = ServerLoop(plan, group, reporter.report, recorder)
        else:
            sources, validation = data
            dealt = Schedule(plan.shard_sizes), plan.owned(spec.rank), sources
            batches = AugmentedBatches(*dealt, plan.augment, plan.seed) if plan.augment else Batches(*dealt)
            loop = TrainingLoop(plan, group, batches, validation, endpoint.commands, reporter.report, recorder, bequest)
            if spec.rank == 0:
                loop.tell_epochs(partial(_note_epoch, endpoint if plan.snapshots else None))
        try:
            return loop.run()
        except Exception as error:  # noqa: BLE001  whatever it is, the supervisor is to know
            step = loop.steps
            reporter.send_records()
            # Told before the links close: then the cause is known before its consequences.
            reporter.send(_failure(spec.rank, step, error))
            words, trace = _words(error), traceback.format_exc()
            forget_traceback(error)
            params, buffers = loop.last_good(), loop.last_good_buffers()
            left = Outcome("failed", step, params, words, trace, best=loop.best(), buffers=buffers)
            return _suspended(plan, loop, left) if plan.replaces_lost and _cause(error) != "own" else left


def _suspended(plan: Plan, loop: TrainingLoop | ServerLoop, left: Outcome) -> Outcome:
    """Return the outcome of a rank that lost others, with what it can go on from."""
    if plan.keeps_points:
        points = loop.points if isinstance(loop, ServerLoop) else loop.points.kept
        return replace(left, status="suspended", points=points)
    state, standing = loop.left_standing()
    return replace(left, status="suspended", state=state, standing=standing)


def _note_epoch(endpoint: Endpoint | None, rank: TrainingRank) -> None:
    if endpoint is not None:
        endpoint.newest_params = current(rank)
    rank.recorder.epoch_over(*newest(rank))


def _budget(spec: RankSpec, worker: Worker, shards: Sequence[AnyShard], held_out: Sequence[AnyShard]) -> float:
    """Return the bytes of data that may be kept in memory."""
    limit = worker.memory_manager.memory_limit
    items = any(isinstance(shard, DatasetShard) for shard in held_out)
    if not limit and not items and all(shard.is_mapped for shard in shards):
        return float("inf")  # mapped files are the system's cache: it takes them back when it must
    return float(spec.memory_share * (limit or MEMORY_LIMIT))


def _room(spec: RankSpec, plan: Plan, worker: Worker) -> float:
    """Return the bytes that a rank may use to have data of its own which others map too."""
    limit = worker.memory_manager.memory_limit
    return float(spec.memory_share * (limit or MEMORY_LIMIT / plan.layout.workers))


def _passes(plan: Plan) -> int:
    """Return how many times all rows are read, if nothing ends the run early."""
    return 1 if plan.stop is not None else -(-plan.goal // max(1, plan.rows))


def _failure(rank: int, step: int, error: Exception) -> RankFailed:
    return RankFailed(rank, _words(error), _cause(error), step, _peer(error))


def _words(error: Exception) -> str:
    if isinstance(error, NonFinite):
        return error.words  # whose and when is said by the supervisor
    return str(error) if isinstance(error, CommError) else f"{type(error).__name__}: {error}"


def _cause(error: Exception) -> str:
    """Return how near to the root an error is: see `RankFailed`."""
    if isinstance(error, comm.Aborted):
        return "told"
    if isinstance(error, comm.CorruptFrame):
        return "frame"
    return "peer" if isinstance(error, comm.PeerLost) else "own"


def _peer(error: Exception) -> int:
    peer = getattr(error, "peer", None)
    return -1 if peer is None else int(peer)
