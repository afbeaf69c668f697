"""Validation: may this run? Given a plan, its placement, data and cluster, each rule is checked before anything is sent.

What a person passes is checked here and in `scaleml.api.settings`; whatever breaks a rule gets an error with the value, the rule
and the remedy.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Final

from distributed import Client

from scaleml.cluster import config
from scaleml.cluster.calls import WorkerFacts
from scaleml.cluster.errors import StartFailed
from scaleml.cluster.host_facts import HostFacts, hosts_of, this_host
from scaleml.cluster.placement import Placement
from scaleml.cluster.staging.memory import REMEDY, USABLE, in_bytes, in_words, memory_of
from scaleml.cluster.staging.placed_data import PlacedData
from scaleml.data.batches import Schedule
from scaleml.data.stream import BLOCK
from scaleml.faults import Fault, Kill
from scaleml.models.flat_model import Normalising
from scaleml.optim import Optimizer
from scaleml.runtime.footprint import Footprint
from scaleml.runtime.parameter_groups import group_segments
from scaleml.runtime.plan import Plan
from scaleml.runtime.shared_memory import REFUSAL
from scaleml.strategies import Layout, Serial, Strategy

_LOOKED_AT: Final = 64
"""Batches from an epoch's beginning whose parts are looked at: later ones are as large, to a row of each shard."""


@dataclass(frozen=True)
class ClusterFacts:
    """The cluster, as far as it decides whether something may run there.

    Parameters
    ----------
    workers : mapping
        What the scheduler knows of each worker.
    hosts : mapping
        The hosts of the workers that take part.
    is_own : bool
        Whether scaleml started it.
    shared_memory : bool
        Whether ranks may share memory.
    memory_share : float
        Share of a worker's memory limit that a rank's data may take.
    """

    workers: Mapping[str, WorkerFacts]
    hosts: Mapping[str, HostFacts]
    is_own: bool
    shared_memory: bool
    memory_share: float

    @classmethod
    def of(
        cls, client: Client, workers: Mapping[str, WorkerFacts], placement: Placement, *, is_own: bool = False
    ) -> ClusterFacts:
        """Add to what the scheduler has said what the workers that take part and Dask's configuration say."""
        return cls(
            workers,
            hosts_of(client, placement.workers, workers),
            is_own,
            config.shared_memory(),
            config.memory_share(),
        )

    def share_memory(self, placement: Placement) -> bool:
        """Whether all ranks of a placement share the memory of one host."""
        return self.shared_memory and len({self.hosts[address]["boot"] for address in placement.addresses}) == 1


def check_run(plan: Plan, placement: Placement, data: PlacedData, cluster: ClusterFacts) -> None:
    """Refuse what cannot run: roles, faults, parameter groups, sparse updates, memory.

    Raises
    ------
    ValueError, TypeError
        For what breaks a rule.
    StartFailed
        When a worker's memory limit is too small, with the figures.
    """
    check_roles(plan, placement, cluster)
    check_faults(plan.faults, placement, cluster)
    check_all_rows(plan.optimizer, plan.strategy)
    check_parts(plan)
    check_skips(plan)
    group_segments(plan)  # each group is of some parameters
    check_sparse(plan.strategy, plan.why_dense)
    check_memory(plan, placement, data, cluster)


def check_parts(plan: Plan) -> None:
    """Raise ValueError where a rank's part of a batch has fewer rows than the model takes: of one of the first, or of an epoch's last."""
    least = plan.model.least_rows if isinstance(plan.model, Normalising) else 1
    if least < 2 or plan.part_rows is not None:
        return
    schedule, size, rows = Schedule(plan.shard_sizes), plan.batch_size, plan.rows
    for start in sorted({*range(0, min(rows, _LOOKED_AT * size), size), (rows - 1) // size * size}):
        stop = min(start + size, rows)
        for rank in range(plan.layout.workers):
            cuts = [
                each.cut(schedule.taken(each.shard, start), schedule.taken(each.shard, stop))
                for each in plan.owned(rank)
            ]
            part = sum(last - first for first, last in cuts)
            if 0 < part < least:
                last = f", the last of an epoch of {rows} rows," if stop == rows else ""
                raise ValueError(
                    f"batch_size={size}: the model normalises over a batch, but rank {rank}'s part of {stop - start} rows{last} is "
                    f"{part} row: choose one that leaves every rank {least}, also at the end of an epoch, fewer workers, or a layer that "
                    "normalises within a row, such as GroupNorm"
                )


def check_skips(plan: Plan) -> None:
    """Raise ValueError where rows that are not finite cannot be left out."""
    if plan.skips_nonfinite and plan.optimizer.takes_all_rows:
        raise ValueError(
            f"on_nonfinite='skip': {plan.optimizer!r} needs all rows in each step; use on_nonfinite='raise'"
        )
    if plan.skips_nonfinite and any(plan.gpus):
        raise ValueError(
            "on_nonfinite='skip': on a GPU no step waits to see whether its loss is finite; pass device='cpu'"
        )


def check_workers(workers: object) -> None:
    """Raise TypeError or ValueError for what can be no choice of workers on any cluster."""
    if workers is None:
        return
    if isinstance(workers, bool) or not isinstance(workers, Integral | list | tuple):
        raise TypeError(
            f"workers={workers!r}: must be a number, a list of worker addresses or names, a range such as (2, 8), or None for all"
        )
    if isinstance(workers, tuple) and workers and all(isinstance(one, Integral) for one in workers):
        if len(workers) != 2 or not 1 <= workers[0] <= workers[1] or any(isinstance(one, bool) for one in workers):
            raise ValueError(
                f"workers={workers!r}: a range is the least and the most workers, such as (2, 8): two positive integers in their order"
            )
        return
    if int(workers) < 1 if isinstance(workers, Integral) else not workers:
        raise ValueError(f"workers={workers!r}: at least one worker is needed; None takes all there are")


def check_shards(shards: int | None, rows: int, ranks: int) -> int:
    """Return into how many shards the data is cut; raise ValueError where a rank or a shard would have nothing."""
    count = shards or ranks
    if rows < max(count, ranks):
        fewer = "workers" if rows < ranks else "shards"
        whose = f"{count} shards: each shard" if fewer == "shards" else f"{ranks} ranks: each rank"
        raise ValueError(f"{rows} training rows for {whose} needs at least one row; use fewer {fewer}")
    return count


def check_roles(plan: Plan, placement: Placement, cluster: ClusterFacts) -> None:
    """Raise ValueError for a strategy whose ranks could not do what is asked of them."""
    strategy, layout = plan.strategy, placement.layout
    if layout.servers > plan.model.size:
        raise ValueError(
            f"{layout.servers} servers for {plan.model.size} parameters: use at most one server a parameter"
        )
    if not strategy.synchronous and plan.optimizer.schedule == "adaptive":
        raise ValueError(
            f"schedule='adaptive' needs the epoch's loss, which nobody has with {strategy!r}: use 'constant' or 'invscaling'"
        )
    if strategy.shares_memory and layout.workers > 1:
        hosts = {cluster.hosts[address]["boot"] for address in placement.workers}
        if len(hosts) > 1:
            raise ValueError(REFUSAL.format(strategy=strategy, why=f"these workers are on {len(hosts)} hosts"))
        if not cluster.shared_memory:
            why = "it is turned off (scaleml.comm.shared-memory in Dask's configuration)"
            raise ValueError(REFUSAL.format(strategy=strategy, why=why))


def check_faults(faults: Sequence[Fault], placement: Placement, cluster: ClusterFacts) -> None:
    """Raise for a fault that cannot be injected, or whose victim must not be killed."""
    layout = placement.layout
    for fault in faults:
        if not isinstance(fault, Fault):
            raise TypeError(f"{fault!r} is no fault: use one of scaleml.faults, such as Slow(rank=1, factor=4)")
        ranks = f"there are {layout.size} ranks, 0 to {layout.size - 1}"
        if layout.servers:
            ranks += f", of which those from {layout.workers} on are servers"
        if fault.rank >= layout.size:
            raise ValueError(f"{fault!r}: {ranks}")
        to = getattr(fault, "to", None)
        if to is not None and to >= layout.size:
            raise ValueError(f"to={to} in {fault!r}: {ranks}")
        if isinstance(fault, Kill) and not (cluster.is_own or fault.allow_kill):
            raise ValueError(
                f"{fault!r}: only workers that scaleml started may be killed; pass client=None to use its own cluster, or "
                "Kill(..., allow_kill=True), in the lab Lab(..., allow_kill=True), if this cluster's workers may die"
            )
    here = this_host()
    for fault in faults:
        if isinstance(fault, Kill):
            worker = cluster.hosts[placement.addresses[fault.rank]]
            if (worker["boot"], worker["pid"]) == (here["boot"], here["pid"]):
                raise ValueError(f"{fault!r}: its worker is a thread of this very process, which is never killed")


def check_all_rows(optimizer: Optimizer, strategy: Strategy) -> None:
    """Raise ValueError where an optimizer needs the gradient of all rows at one point, which the strategy never has."""
    if not optimizer.takes_all_rows or isinstance(strategy, Serial):
        return
    if not (strategy.replicated and strategy.sums_gradients(0)):
        raise ValueError(
            f"{optimizer!r} with {strategy!r}: it searches along a line, for which it needs the exact gradient of all rows at one point: "
            "use AllReduce() without compression, or Serial()"
        )


def check_sparse(strategy: Strategy, why_dense: str) -> None:
    """Raise ValueError where sparse updates were asked for and there is something against them."""
    if getattr(strategy, "sparse", None) and why_dense:
        raise ValueError(f"{strategy!r} cannot be sparse here: {why_dense}; or leave sparse out")


def check_memory(plan: Plan, placement: Placement, data: PlacedData, cluster: ClusterFacts) -> None:
    """Refuse workers whose memory limit is too small for their rank even when the data is read from disk as it is needed.

    A rank needs, beside what its process takes already: its part of the data if that is at most ``memory_share`` of the limit,
    else three blocks of 8 MB for each of its shards (less where there are more than eight); its part of a batch; and arrays of the
    size of the parameters, see `Footprint`. Ranks whose workers have no limit share their host's memory.

    Raises
    ------
    StartFailed
        With the figures.
    """
    ranks = placement.layout.workers
    read = max(map(len, plan.opened))  # shards of a rank, also those that it owns in part
    mine = data.nbytes * read / len(plan.shard_sizes)
    row_nbytes = data.train.nbytes / max(1, data.train.rows)
    batch = plan.rows_at_once / ranks * row_nbytes
    accumulates = plan.part_rows is not None
    footprint = Footprint.of(plan.model, plan.strategy, plan.optimizer, accumulates=accumulates)
    vectors = footprint.total
    hosts = Counter(cluster.hosts[address]["boot"] for address in placement.addresses[:ranks])
    shards = len(plan.shard_sizes)
    in_flight = 3 * min(BLOCK, max(1 << 20, (64 << 20) // shards)) * read
    for address in placement.addresses[:ranks]:
        limit, used = memory_of(cluster.workers[address])
        host = cluster.hosts[address]
        if limit:
            who = f"is limited to {in_bytes(limit)} of memory and its process takes {in_bytes(used)} already"
            held = mine if mine <= cluster.memory_share * limit else min(mine, in_flight)
        else:  # data that is mapped, and pages that all processes share, leave what is free open: only what is certain counts
            limit, used, held = host["memory"] // hosts[host["boot"]], 0, 0.0
            who = f"has {in_bytes(limit)} of memory, its share of its host's"
        if used + held + batch + vectors > USABLE * limit:
            raise StartFailed(
                f"worker {address} {who}, but training needs {in_bytes(held + batch + vectors)} more there: {in_bytes(held)} for data, "
                f"{in_bytes(batch)} for its part of a batch of {plan.batch_size} rows, {in_bytes(vectors)} for {plan.model.size} "
                f"parameters and what belongs to them ({in_words(footprint)}). {REMEDY}, or use a smaller batch_size or fewer shards"
            )


def check_switch(plan: Plan, strategy: Strategy, layout: Layout, workers: int, state: str) -> None:
    """Refuse a switch that needs other ranks where the run cannot be handed over to them.

    Parameters
    ----------
    plan : Plan
        In force.
    strategy : Strategy
        That is to follow.
    layout : Layout
        Its ranks.
    workers : int
        How many are to train.
    state : str
        Of the run.
    """
    if layout.workers != workers:
        raise ValueError(
            f"{strategy!r} trains on {layout.workers} rank{'s' * (layout.workers != 1)}, not on {workers}: pass workers={layout.workers}, "
            f"or another strategy, such as update(strategy=AllReduce(), workers={workers})"
        )
    if plan.batch_size < workers:
        raise ValueError(
            f"workers={workers} with batch_size={plan.batch_size}: each rank needs a row of each batch; give a larger batch_size, or fewer"
        )
    same = strategy == plan.strategy and strategy.synchronous
    if (plan.stop is not None and not same) or (plan.steps is not None and not (same and strategy.replicated)):
        raise ValueError(
            f"{strategy!r} needs other ranks than {plan.strategy!r}, and an estimator's rule when to stop does not go on with them: "
            "fit again with the other strategy"
            if not same
            else f"workers={workers}: under {strategy!r} an estimator's steps depend on the number of ranks: fit again with that number"
        )
    if state == "paused":
        raise ValueError(f"other ranks take over under {strategy!r}: resume() before that")


def check_alive(addresses: Sequence[str], workers: Mapping[str, WorkerFacts]) -> None:
    """Raise ValueError where workers of a run have left the cluster."""
    missing = [address for address in addresses if address not in workers]
    if missing:
        raise ValueError(f"the Dask workers {', '.join(missing)} are gone: the run is about to fail")
