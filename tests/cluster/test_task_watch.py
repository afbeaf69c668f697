"""Ranks that cannot say what ended them: their tasks' errors and cancellations end the run at once, in their own words."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import cloudpickle
import pytest
from distributed import Client, KilledWorker

import leaks
import scaleml
from cluster.conftest import Problem, poll
from cluster.harness import running, scaleml_tasks
from scaleml import AllReduce, RunFailed
from scaleml.cluster import rank_task
from scaleml.cluster.events import WorkerLost
from scaleml.cluster.task_watch import TaskWatch

cloudpickle.register_pickle_by_value(sys.modules[__name__])
pytestmark = pytest.mark.usefixtures("users_cluster_only")


def refuse() -> AllReduce:
    raise OSError("not to be unpickled")


class Closed(AllReduce):
    """A strategy that cannot be read where it comes."""

    def __reduce__(self) -> tuple[Callable[[], AllReduce], tuple[()]]:
        return refuse, ()


class Locked(AllReduce):
    """A strategy that cannot be sent."""

    def __reduce__(self) -> Any:
        raise TypeError("cannot pickle a lock")


def broken(*_: object) -> None:
    raise ZeroDivisionError("before it entered")


def unknown(*_: object) -> None:
    return None


@pytest.mark.parametrize(
    ("strategy", "entrance", "words"),
    [
        (Closed(), None, "OSError: not to be unpickled"),
        (Locked(), None, "TypeError: cannot pickle a lock"),
        (AllReduce(), broken, r"rank \d on worker tcp://.*: ZeroDivisionError: before it entered"),
        (AllReduce(), unknown, r"rank \d on worker tcp://.*has started anew since it was chosen"),
    ],
    ids=["unpickling", "pickling", "before entering", "another process"],
)
def test_a_task_that_ends_without_a_word(
    threads: Client,
    problem: Problem,
    monkeypatch: pytest.MonkeyPatch,
    strategy: AllReduce,
    entrance: Callable[..., None] | None,
    words: str,
) -> None:
    if entrance is not None:
        monkeypatch.setattr(rank_task, "take_endpoint", entrance)
    # The deadline for a start is 60 s, that of the test 20 s: nobody waits for it.
    with leaks.guard(sockets=False), pytest.raises(RunFailed, match=words):
        scaleml.start(**problem.settings(client=threads, strategy=strategy)).wait(20)
    assert poll(lambda: not scaleml_tasks(threads), 5)


def test_a_task_that_went_with_its_worker_is_a_lost_worker(threads: Client) -> None:
    """Where Dask allows no failures it does not wait for another worker: the task errs."""

    async def killed() -> None:
        worker: Any = SimpleNamespace(address="tcp://a")
        raise KilledWorker("scaleml-run-0-1", worker, 0)

    futures: Any = [SimpleNamespace(status="pending"), SimpleNamespace(status="error", _result=killed)]
    watch: TaskWatch[Any] = TaskWatch(threads, futures)
    assert watch.look({}, 0.0) == [WorkerLost("tcp://a")]
    assert watch.look({1: "lost"}, 0.0) == []


def test_tasks_that_somebody_cancels(threads: Client, problem: Problem) -> None:
    with leaks.guard(sockets=False), running(**problem.endless(client=threads)) as run:
        threads.cancel(list(threads.futures.values()) and _futures(threads), force=True)
        with pytest.raises(RunFailed, match="the tasks of the run were cancelled in Dask; start the run again"):
            run.wait(20)


def _futures(client: Client) -> list[Any]:
    from distributed import Future

    return [Future(key, client) for key in client.futures if str(key).startswith("scaleml-")]
