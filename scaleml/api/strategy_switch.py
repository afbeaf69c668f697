"""A switch in mid-run, to another strategy or another number of ranks: by the same ranks, or by others that take over from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import EllipsisType

from dask.base import annotate

from scaleml.api.device_choice import choose_gpus
from scaleml.api.validation import ClusterFacts, check_alive, check_run, check_switch, check_workers
from scaleml.cluster import calls
from scaleml.cluster.calls import WorkerFacts
from scaleml.cluster.device_facts import gpus_of
from scaleml.cluster.driver import Driver
from scaleml.cluster.launcher import Generation
from scaleml.cluster.placement import Workers, candidates, place, range_of
from scaleml.models.on_devices import Foreign
from scaleml.runtime.plan import Plan
from scaleml.runtime.rank_change import RankChange
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
    plan: Plan, strategy: Strategy, workers: Workers | EllipsisType, driver: Driver, *, is_own: bool = False
) -> Generation:
    """Return the ranks that are to go on in place of a run's, with another strategy, or another number of them.

    Parameters
    ----------
    plan : Plan
        In force.
    strategy : Strategy
        That is to follow.
    workers : int, list of addresses or names, (least, most), None or ...
        How many, or which, are to train; None for all there are, ... for those that do.
    driver : Driver
        The run's.
    is_own : bool
        Whether scaleml started the cluster.

    Raises
    ------
    TypeError, ValueError, StartFailed
        When that cannot be: before anything has changed.
    """
    now, client = driver.placement, driver.client
    before = now.addresses[: now.layout.workers]
    info = calls.identity(client)
    with annotate(resources=now.resources):
        if workers is ...:
            training = list(before)
            check_alive(training, info)
        else:
            training = chosen(before, workers, info, is_own=is_own)
        placement = place(strategy, training, info)
    check_switch(plan, strategy, placement.layout, len(training), driver.state)
    cluster = ClusterFacts.of(client, info, placement, is_own=is_own)
    training = list(placement.addresses[: placement.layout.workers])
    same = tuple(training) == before
    gpus = plan.gpus[: len(training)] if same else ()
    if not same and any(plan.gpus):
        see = partial(gpus_of, client, cluster.hosts, plan.model.framework if isinstance(plan.model, Foreign) else "")
        wanted = replace(plan, strategy=strategy).with_workers(len(training))
        gpus = choose_gpus("auto", wanted, placement.addresses, cluster.hosts, see)[: len(training)]
    changes = [f"strategy={strategy!r}"] if strategy != plan.strategy or same else []
    changes += [] if same else [f"workers={len(training)}"]
    plan = replace(
        replace(plan, strategy=strategy).with_workers(len(training), gpus),
        one_memory=cluster.share_memory(placement),
        recovered=False,
        change=", ".join(changes),
    )
    check_run(replace(plan, faults=()), placement, driver.data, cluster)
    change = None if same else RankChange.between(before, training)
    return Generation(driver.generation.number + 1, plan, placement, change=change)


def chosen(
    before: Sequence[str], workers: Workers, info: Mapping[str, WorkerFacts], *, is_own: bool = False
) -> list[str]:
    """Return the workers that are to train: of those who do as many as may go on doing so, in their order, then others.

    Raises
    ------
    ValueError
        Where there are not enough, or one that was named is not there.
    """
    check_workers(workers)
    if isinstance(workers, list | tuple) and range_of(workers) is None:
        named = candidates(info, workers, is_own)
        return [*(one for one in before if one in named), *(one for one in named if one not in before)]
    count = len(candidates(info, workers, is_own))
    stay = [one for one in before if one in info]
    if workers is None:
        count = max(count, len(stay))
    others = [one for one in candidates(info, None, embedded=False) if one not in stay]
    return [*stay, *others][:count]
