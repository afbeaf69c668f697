"""May this run? Every rule by itself, on facts made of thin air: no cluster."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from scaleml import SGD, Adam, AllReduce, Hogwild, LinearModel, ParameterServer, Serial
from scaleml.api import validation
from scaleml.api.validation import ClusterFacts, check_run, check_shards, check_switch
from scaleml.cluster.errors import StartFailed
from scaleml.cluster.host_facts import this_host
from scaleml.cluster.placement import Placement
from scaleml.faults import Kill, Latency, Slow
from scaleml.models import Signature
from scaleml.runtime.plan import Plan
from scaleml.runtime.stop_rule import StopRule
from scaleml.strategies import Layout, Strategy

ADDRESSES = ("tcp://a", "tcp://b")
DATA: Any = SimpleNamespace(nbytes=10_000, train=SimpleNamespace(nbytes=10_000, rows=100))


def plan(strategy: Strategy, **changed: Any) -> Plan:
    settings: dict[str, Any] = {
        "model": LinearModel().build(Signature(4)),
        "strategy": strategy,
        "optimizer": SGD(0.1),
        "layout": strategy.layout(2),
        "shard_sizes": (50, 50),
        "epochs": 1,
        "batch_size": 10,
        "seed": 0,
        "dtype": "float32",
        "evaluate_every": 0,
    }
    return Plan(**{**settings, **changed})


def facts(**changed: Any) -> ClusterFacts:
    host = {**this_host(), "pid": -1}
    workers: Any = {address: {"memory_limit": None} for address in ADDRESSES}
    hosts: Any = dict.fromkeys(ADDRESSES, host)
    return replace(ClusterFacts(workers, hosts, True, shared_memory=True, memory_share=0.25), **changed)


def check(run: Plan, **changed: Any) -> None:
    servers = [ADDRESSES[-1]] * run.layout.servers
    placement = Placement(run.layout, (*ADDRESSES[: run.layout.workers], *servers), 1)
    check_run(run, placement, DATA, facts(**changed))


@pytest.mark.parametrize(
    "run",
    [
        plan(AllReduce(), faults=(Slow(1, factor=4), Latency(0, 1, to=1), Kill(1, 3))),
        plan(ParameterServer("async", servers=2), faults=(Slow(3, factor=2),)),
        plan(Hogwild()),
        plan(Serial()),
    ],
    ids=lambda run: repr(run.strategy),
)
def test_what_breaks_no_rule_may_run(run: Plan) -> None:
    check(run)


@pytest.mark.parametrize(
    ("run", "changed", "words"),
    [
        (plan(ParameterServer(servers=9)), {}, "9 servers for 5 parameters: use at most one server a parameter"),
        (plan(ParameterServer("async"), optimizer=SGD(0.1, schedule="adaptive")), {}, "'adaptive' needs the epoch's loss"),
        (plan(Hogwild()), {"shared_memory": False}, r"turned off .* use ParameterServer\('async'\)"),
        (plan(AllReduce(), faults=(Slow(2, factor=4),)), {}, "there are 2 ranks, 0 to 1"),
        (plan(ParameterServer(), faults=(Slow(3, factor=4),)), {}, "those from 2 on are servers"),
        (plan(AllReduce(), faults=(Latency(0, 1, to=5),)), {}, "to=5 in Latency"),
        (plan(AllReduce(), faults=(Kill(1, 3),)), {"is_own": False}, "only workers that scaleml started may be killed"),
        (plan(ParameterServer(sparse=True)), {}, "cannot be sparse here: X is dense"),
    ],
)  # fmt: skip
def test_what_breaks_one_is_refused_with_the_remedy(run: Plan, changed: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check(run, **changed)


def test_ranks_on_several_hosts_share_no_memory() -> None:
    hosts: Any = {address: {**this_host(), "boot": address} for address in ADDRESSES}
    check(plan(AllReduce()), hosts=hosts)
    with pytest.raises(ValueError, match="on 2 hosts"):
        check(plan(Hogwild()), hosts=hosts)


def test_a_fault_is_one() -> None:
    with pytest.raises(TypeError, match="'slow' is no fault"):
        check(plan(AllReduce(), faults=("slow",)))


def test_this_process_is_never_killed() -> None:
    with pytest.raises(ValueError, match="this very process"):
        check(plan(AllReduce(), faults=(Kill(1, 3),)), hosts=dict.fromkeys(ADDRESSES, this_host()))


def test_too_small_a_worker_is_refused_with_figures() -> None:
    workers: Any = {address: {"memory_limit": 10**8, "metrics": {"memory": 9 * 10**7}} for address in ADDRESSES}
    with pytest.raises(StartFailed, match=r"worker tcp://a is limited to 100 MB .* takes 90 MB already"):
        check(plan(AllReduce()), workers=workers)


def test_workers_without_a_limit_share_their_host() -> None:
    deep = plan(AllReduce(), model=LinearModel().build(Signature(10**6)), optimizer=Adam())  # 8 arrays of 4 MB
    check(deep, hosts={address: {**this_host(), "memory": 80 * 10**6} for address in ADDRESSES})  # type: ignore[misc]
    with pytest.raises(
        StartFailed,
        match=r"has 35 MB of memory, its share of its host's.*parameters 4 MB, gradient 4 MB, Adam's slots 8 MB",
    ):
        check(deep, hosts={address: {**this_host(), "memory": 70 * 10**6} for address in ADDRESSES})  # type: ignore[misc]


@pytest.mark.parametrize(
    ("shards", "rows", "words"),
    [(1, 1, "use fewer workers"), (None, 1, "use fewer workers"), (5, 4, "use fewer shards")],
)
def test_every_rank_and_every_shard_has_something(shards: int | None, rows: int, words: str) -> None:
    assert (check_shards(None, 2, 2), check_shards(6, 6, 2)) == (2, 6)
    with pytest.raises(ValueError, match=words):
        check_shards(shards, rows, 2)


@pytest.mark.parametrize(
    ("run", "layout", "state", "words"),
    [
        (plan(AllReduce()), Layout(1), "running", "trains on 1 rank, not on 2"),
        (plan(AllReduce(), stop=StopRule()), Layout(2, servers=1), "running", "fit again with the other strategy"),
        (plan(AllReduce()), Layout(2, servers=1), "paused", r"resume\(\) before that"),
    ],
)
def test_who_cannot_hand_over_is_told_before(run: Plan, layout: Layout, state: str, words: str) -> None:
    check_switch(plan(AllReduce()), ParameterServer(), Layout(2, servers=1), 2, "running")
    with pytest.raises(ValueError, match=words):
        check_switch(run, ParameterServer(), layout, 2, state)


@pytest.mark.parametrize("workers", [None, 1, 2, ["tcp://a"], ("a", "b")])
def test_a_choice_of_workers(workers: Any) -> None:
    validation.check_workers(workers)


@pytest.mark.parametrize(
    ("workers", "error"), [(0, ValueError), ([], ValueError), (True, TypeError), (1.5, TypeError), ("a", TypeError)]
)
def test_no_choice_of_workers(workers: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="workers="):
        validation.check_workers(workers)
