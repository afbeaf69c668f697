"""Strategy switch in mid-run: by the same ranks, or by others that take over from them."""

from __future__ import annotations

from dataclasses import replace

from distributed import Client

from scaleml.api.validation import ClusterFacts, check_alive, check_run, check_switch
from scaleml.cluster import calls
from scaleml.cluster.placement import Placement, place
from scaleml.cluster.staging.placed_data import PlacedData
from scaleml.runtime.plan import Plan
from scaleml.runtime.serialization import is_ours
from scaleml.strategies import Layout, Strategy


def keeps_ranks(before: Strategy, after: Strategy, workers: int) -> bool:
    """Whether the ranks of a strategy can go on with another one as they stand: both keep all in step, without servers."""
    if not is_ours(after):
        return False  # no rank could rebuild it from its name
    layouts = before.layout(workers), after.layout(workers)
    return layouts == (Layout(workers), Layout(workers)) and before.synchronous and after.synchronous


def called(label: str, began: Strategy, now: Strategy) -> str:
    """Return what a run is called by now: with the strategy in force, unless its label says something else than the first one.

    Examples
    --------
    >>> from scaleml import AllReduce, LocalSGD
    >>> called("AllReduce()", AllReduce(), LocalSGD(8)), called("mine", AllReduce(), LocalSGD(8))
    ('AllReduce(), then LocalSGD(period=8)', 'mine')
    """
    return label if label != repr(began) or repr(now) == label else f"{label}, then {now!r}"


def next_generation(
    plan: Plan, strategy: Strategy, placement: Placement, data: PlacedData, client: Client, state: str
) -> tuple[Plan, Placement]:
    """Return what other ranks, on the same workers, need to go on with another strategy.

    Parameters
    ----------
    plan : Plan
        In force.
    strategy : Strategy
        That is to follow.
    placement : Placement
        Of the ranks that train now.
    data : PlacedData
        The run's.
    client : Client
        The cluster.
    state : str
        Of the run.

    Raises
    ------
    TypeError, ValueError, StartFailed
        When that cannot be: before anything has changed.
    """
    layout = strategy.layout(placement.layout.workers)
    check_switch(plan, strategy, layout, state)
    training = placement.addresses[: layout.workers]
    workers = calls.identity(client)
    check_alive(training, workers)
    placement = place(strategy, training, workers)
    gpus = (*plan.gpus[: layout.workers], *[None] * layout.servers) if plan.gpus else ()
    plan = replace(plan, strategy=strategy, layout=layout, gpus=gpus)
    check_run(replace(plan, faults=()), placement, data, ClusterFacts.of(client, workers, placement))
    return plan, placement
