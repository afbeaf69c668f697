"""A client whose connection drops and comes back by itself, and one that is closed: what it was used for ends, what is new works."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import dask.array as da
import pytest
from distributed import Client

import leaks
import scaleml
from cluster.conftest import Problem, poll
from cluster.harness import compare, running
from scaleml import AllReduce, LocalSGD, ParameterServer, RunFailed, Trial
from scaleml.cluster.errors import StartFailed
from scaleml.linear_model import SGDClassifier

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


def test_a_dropped_connection_ends_the_run_and_the_next_one_works(mine: Client, problem: Problem) -> None:
    problem.check(scaleml.train(**problem.settings(client=mine)).params, shards=2)  # it has subscribed already
    with leaks.guard(sockets=False), running(**problem.endless(client=mine)) as run:
        drop(mine)
        with pytest.raises(RunFailed, match=r"the Dask client .*tart the run again"):
            run.wait(20)
    problem.check(scaleml.train(**problem.settings(client=mine)).params, shards=2)


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
    found = compare(problem, strategies, client=mine, epochs=10**9, on_run=begun)
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
