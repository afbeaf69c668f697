"""A client whose connection drops and comes back by itself: its ranks wait for it; one that is closed: what it was used for ends."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
from distributed import Client
from numpy.testing import assert_array_equal

import leaks
import scaleml
from cluster.conftest import Problem, poll
from cluster.harness import compare, running
from scaleml import AllReduce, Hogwild, LocalSGD, ParameterServer, Run, RunFailed, Serial, Trial
from scaleml.cluster import parked_ranks
from scaleml.cluster.errors import StartFailed
from scaleml.linear_model import SGDClassifier
from scaleml.strategies import Strategy

pytestmark = pytest.mark.usefixtures("users_cluster_only")


@pytest.fixture
def mine(threads: Client) -> Iterator[Client]:
    """A client of the test's own: it may be lost."""
    with Client(threads.cluster, set_as_default=False) as client:
        yield client


def drop(client: Client) -> None:
    """Break the connection to the scheduler, as a network does; Dask makes another."""
    former = client.scheduler_comm
    client.loop.add_callback(former.comm.abort)
    assert poll(lambda: client.scheduler_comm not in (None, former) and client.status == "running")


def test_a_dropped_connection_ends_a_run_that_is_not_to_recover(mine: Client, problem: Problem) -> None:
    problem.check(scaleml.train(**problem.settings(client=mine)).params, shards=2)  # it has subscribed already
    settings = problem.endless(client=mine, on_worker_lost="raise")
    with leaks.guard(sockets=False), running(**settings) as run:
        drop(mine)
        with pytest.raises(RunFailed, match=r"the Dask client .*tart the run again"):
            run.wait(20)
    problem.check(scaleml.train(**problem.settings(client=mine)).params, shards=2)


@pytest.mark.parametrize("strategy", [AllReduce(), Serial(), LocalSGD(2), ParameterServer("bsp")], ids=repr)
def test_ranks_wait_for_their_client_and_the_bits_are_the_same(
    mine: Client, problem: Problem, strategy: Strategy
) -> None:
    """Dropped in mid-run, then in a pause, on rows that the scheduler has forgotten with the client."""
    rows = [da.from_array(data, chunks=50).persist() for data in (problem.X, problem.y)]
    settings = problem.settings(client=mine, strategy=strategy, epochs=400 if strategy != Serial() else 8000)
    settings |= dict(zip("Xy", rows, strict=True))
    undisturbed = scaleml.train(**settings)
    with leaks.guard(sockets=False):
        run = scaleml.start(**settings)
        assert poll(lambda: run.state == "running" and len(run.history) > 1)
        drop(mine)
        assert poll(lambda: recoveries(run) == 1), run.history.marks
        run.pause()
        drop(mine)
        assert poll(lambda: recoveries(run) == 2), run.history.marks
        assert poll(lambda: run.state == "paused")
        run.resume()
        run.wait(30)
        assert_array_equal(run.params, undisturbed.params)
        assert run.history.recoveries[0].what == "the client's connection"


@pytest.mark.parametrize("strategy", [ParameterServer("async"), Hogwild()], ids=repr)
def test_ranks_with_a_pace_of_their_own_wait_for_their_client(
    mine: Client, problem: Problem, strategy: Strategy
) -> None:
    with leaks.guard(sockets=False), running(**problem.endless(client=mine, strategy=strategy)) as run:
        assert poll(lambda: len(run.history) > 1)
        drop(mine)
        assert poll(lambda: recoveries(run) == 1 and run.state == "running"), run.history.marks
        seen = len(run.history)
        assert poll(lambda: len(run.history) > seen)
        run.stop()
        assert run.state == "stopped"
        assert np.isfinite(run.params).all()


def recoveries(run: Run) -> int:
    return len(run.history.recoveries)


def test_who_does_not_come_back_is_not_waited_for_long(mine: Client, problem: Problem) -> None:
    with dask.config.set({"scaleml.client-timeout": "300ms"}), running(**problem.endless(client=mine)) as run:
        mine.close()
        with pytest.raises(RunFailed, match="the Dask client is clos"):
            run.wait(20)
        mine_no_more = run._driver.run
        assert poll(lambda: not [key for key in parked_ranks._parked if key[0] == mine_no_more])


def test_two_clients_of_one_scheduler_hear_each_of_their_own_runs_once(
    threads: Client, mine: Client, problem: Problem
) -> None:
    with running(**problem.endless(client=threads)):
        run = scaleml.train(**problem.settings(client=mine))
    rows = run.history.rows
    assert len(rows) == len(np.unique(rows, axis=0))


def close(client: Client) -> None:
    client.close()


@pytest.mark.parametrize(
    ("lose", "states", "ended"),
    [
        (drop, ["finished", "failed", "finished"], None),
        (
            close,
            ["finished", "failed"],
            "The comparison ended before LocalSGD(period=2), epochs=2: the Dask client is clos",
        ),
    ],
    ids=["dropped", "closed"],
)
def test_a_comparison_keeps_what_has_finished(
    mine: Client, problem: Problem, lose: Callable[[Client], None], states: list[str], ended: str | None
) -> None:
    threads: list[threading.Thread] = []

    def begun(run: Any, rows: int) -> None:
        if run.label.startswith("ParameterServer"):
            assert poll(lambda: run.state == "running")
            threads.append(threading.Thread(target=lose, args=(mine,)))
            threads[-1].start()

    strategies = [Trial(AllReduce(), epochs=2), ParameterServer("async"), Trial(LocalSGD(2), epochs=2)]
    found = compare(problem, strategies, client=mine, epochs=10**9, on_run=begun, on_worker_lost="raise")
    threads[0].join(20)
    assert [run.state for run in found.runs] == states
    assert "the Dask client" in found.runs[1].error
    assert found.ended is None if ended is None else found.ended.startswith(ended)
    assert str(found.verdict).count(found.ended or "the Dask client") == 1


def test_an_interrupted_run_that_fails_ends_the_comparison(threads: Client, problem: Problem) -> None:
    """Ctrl-C in a terminal also ends the workers of a `LocalCluster`: there is nothing to wait for."""

    def interrupted(run: Any, rows: int) -> None:
        run.interrupted = True

    crash = [scaleml.faults.Crash(1, 3)]
    found = compare(problem, [AllReduce(), LocalSGD(2)], client=threads, faults=crash, on_run=interrupted)
    assert [run.state for run in found.runs] == ["failed"]
    assert found.ended == "The comparison was stopped before LocalSGD(period=2)."


def test_data_that_was_cancelled_is_named(threads: Client, problem: Problem) -> None:
    X, y = threads.persist([da.from_array(problem.X, chunks=(50, -1)), da.from_array(problem.y, chunks=50)])
    threads.cancel([X, y], force=True)
    settings = problem.settings(client=threads)
    with leaks.guard(sockets=False):
        for bad in ({"X": X, "y": y}, {"y": y}):
            with pytest.raises(StartFailed, match=r"is computed from has been cancelled in Dask .*persist it, again"):
                scaleml.train(**{**settings, **bad})
        estimator = SGDClassifier()
        estimator.client = threads
        with pytest.raises(StartFailed, match="what X is computed from has been cancelled"):
            estimator.fit(X, y)


def test_an_error_is_shown_alone(threads: Client, problem: Problem) -> None:
    with pytest.raises(ValueError, match="epochs=0") as found:
        scaleml.train(**problem.settings(client=threads, epochs=0))
    assert found.value.__context__ is None
