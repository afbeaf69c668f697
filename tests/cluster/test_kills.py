"""Whose workers may be killed: those that scaleml started, others if the user says so, this very process never."""

from __future__ import annotations

import pytest
from distributed import Client

import scaleml
from cluster.conftest import Problem, poll
from scaleml import RunFailed
from scaleml.cluster import event_router
from scaleml.faults import Kill, Slow

pytestmark = pytest.mark.usefixtures("users_cluster_only")


def test_a_users_worker_is_killed_only_if_they_say_so(
    client: Client, problem: Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_router, "_UNDER_WAY", 0.05)
    before = set(client.scheduler_info()["workers"])
    with pytest.raises(ValueError, match=r"only workers that scaleml started.*allow_kill=True"):
        scaleml.train(**problem.settings(client=client, faults=[Kill(1, 3)]))
    run = scaleml.start(**problem.settings(client=client, epochs=100_000, on_worker_lost="raise"))
    with pytest.raises(ValueError, match="only workers that scaleml started"):
        run.inject(Kill(1, 3))
    run.inject(Slow(1, 2))
    assert not run.over
    run.inject(Kill(1, 3, allow_kill=True))
    with pytest.raises(RunFailed, match="rank 1 lost at step"):
        run.wait(30)
    assert [text.partition("(")[0] for _, text in run.history.marks] == ["Slow", "Kill"]
    client.wait_for_workers(2, timeout=30)
    now = set(client.scheduler_info()["workers"])
    (lost,) = before - now  # else the fault did not happen
    assert before & now <= set(client._event_handlers)
    assert poll(lambda: lost not in client._event_handlers, 10), "nobody will ever hear of that address again"
    problem.check(scaleml.train(**problem.settings(client=client)).params, shards=2)
    assert now <= set(client._event_handlers)


def test_this_very_process_is_never_killed(threads: Client, problem: Problem) -> None:
    kill = Kill(1, 3, allow_kill=True)
    with pytest.raises(ValueError, match="this very process"):
        scaleml.train(**problem.settings(client=threads, faults=[kill]))
    with pytest.raises(ValueError, match="this very process"):
        scaleml.compare(
            *list(problem.settings(client=threads).values())[:3], [scaleml.AllReduce()], client=threads, faults=[kill]
        )
    run = scaleml.start(**problem.settings(client=threads, epochs=100_000))
    with pytest.raises(ValueError, match="this very process"):
        run.inject(kill)
    assert not run.over
    run.stop()
