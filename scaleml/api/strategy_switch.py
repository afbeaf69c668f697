"""Which strategy may follow which in mid-run, and how: by the same ranks, or by others in their place."""

from __future__ import annotations

from dataclasses import replace

from distributed import Client

from scaleml.api.settings import hint_of_class
from scaleml.cluster import calls, config
from scaleml.cluster.host_facts import facts_of
from scaleml.cluster.placement import Placement, place
from scaleml.cluster.staging.memory import WorkerFacts, check_memory
from scaleml.cluster.staging.placed_data import PlacedData
from scaleml.models.flat_model import FlatModel
from scaleml.optim import Optimizer
from scaleml.runtime.plan import Plan
from scaleml.runtime.serialization import is_ours
from scaleml.runtime.shared_memory import REFUSAL
from scaleml.runtime.sparsity import check_sparse
from scaleml.strategies import Layout, Strategy


def check_roles(
    strategy: Strategy, placement: Placement, model: FlatModel, optimizer: Optimizer, client: Client
) -> None:
    """Raise ValueError for a strategy whose ranks could not do what is asked of them, before they are sent."""
    layout = placement.layout
    if layout.servers > model.size:
        raise ValueError(f"{layout.servers} servers for {model.size} parameters: use at most one server a parameter")
    if not strategy.synchronous and optimizer.schedule == "adaptive":
        raise ValueError(
            f"schedule='adaptive' needs the epoch's loss, which nobody has with {strategy!r}: use 'constant' or 'invscaling'"
        )
    if strategy.shares_memory and layout.workers > 1:
        hosts = {facts["boot"] for facts in facts_of(client, placement.workers).values()}
        if len(hosts) > 1:
            raise ValueError(REFUSAL.format(strategy=strategy, why=f"these workers are on {len(hosts)} hosts"))
        if not config.shared_memory():
            raise ValueError(
                REFUSAL.format(
                    strategy=strategy, why="it is turned off (scaleml.comm.shared-memory in Dask's configuration)"
                )
            )


def check_room(info: WorkerFacts, placement: Placement, plan: Plan, data: PlacedData) -> None:
    """Raise StartFailed for workers whose memory limit is too small for their rank."""
    check_memory(
        info,
        placement.addresses[: placement.layout.workers],
        nbytes=data.nbytes,
        row_nbytes=data.train.nbytes / max(1, data.train.rows),
        batch_size=plan.batch_size,
        size=plan.model.size,
        itemsize=plan.model.dtype.itemsize,
        shards=len(plan.shard_sizes),
        share=config.memory_share(),
    )


def same_ranks(before: Strategy, after: Strategy, workers: int) -> bool:
    """Whether the ranks of a strategy can go on with another one as they stand: both keep all in step, without servers."""
    if not isinstance(after, Strategy):
        raise TypeError(
            f"strategy={after!r}: must be a strategy such as AllReduce() or LocalSGD(8){hint_of_class(after)}"
        )
    if not is_ours(after):
        return False  # no rank could rebuild it from its name
    layouts = before.layout(workers), after.layout(workers)
    return layouts == (Layout(workers), Layout(workers)) and before.synchronous and after.synchronous


def successor(
    plan: Plan, strategy: Strategy, placement: Placement, data: PlacedData, client: Client
) -> tuple[Plan, Placement]:
    """Return what is needed for other ranks, on the same workers, to go on with another strategy.

    Raises
    ------
    TypeError, ValueError
        When that cannot be: before anything has changed.
    """
    workers = placement.layout.workers
    layout = strategy.layout(workers)
    if layout.workers != workers:
        raise ValueError(
            f"{strategy!r} trains on {layout.workers} ranks, this run on {workers}, between which its data is divided: start a new run"
        )
    if plan.stop is not None or plan.steps is not None:
        raise ValueError(
            f"{strategy!r} needs other ranks than {plan.strategy!r}, and an estimator's rule when to stop does not go on with them: "
            "fit again with the other strategy"
        )
    info = calls.identity(client, 10.0)
    missing = [address for address in placement.addresses[:workers] if address not in info]
    if missing:
        raise ValueError(f"the Dask workers {', '.join(missing)} are gone: the run is about to fail")
    placement = place(strategy, placement.addresses[:workers], info)
    check_roles(strategy, placement, plan.model, plan.optimizer, client)
    plan = replace(plan, strategy=strategy, layout=layout)
    check_sparse(strategy, plan.why_dense)
    check_room(info, placement, plan, data)
    return plan, placement
