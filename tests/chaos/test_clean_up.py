"""A hundred runs, however they end, leave threads, descriptors, shared memory, files, Dask's tasks and memory where they began."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import sys
import tempfile
import threading
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import psutil
import pytest
from distributed import Client

import leaks
import scaleml
from chaos.arena import X, Y, until
from embedded import embedded
from runtime.aftermath import Watch
from scaleml.cluster import event_router
from scaleml.faults import Crash, Kill
from scaleml.strategies import AllReduce, Hogwild, ParameterServer, Serial, Strategy

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import the tests' folder

WORKERS, RANKS = 4, 3
STRATEGIES: list[Strategy] = [AllReduce(), ParameterServer(), Serial(), Hogwild(), AllReduce(overlap=True)]
GROWTH = 48 << 10
"""Bytes a run by which memory may grow: Dask notes something of each task in logs of limited length, which are not full yet."""

pytestmark = pytest.mark.timeout(400)


def started(strategy: Strategy, **more: Any) -> scaleml.Run:
    settings = {"workers": RANKS, "batch_size": 24, "epochs": 3, "validation": 0.2, **more}
    return scaleml.start(scaleml.MLP((4,)), X, Y, strategy=strategy, **settings)


def running(strategy: Strategy) -> scaleml.Run:
    run = started(strategy, epochs=10**6)
    assert until(lambda: run.state != "starting")
    return run


def finished(strategy: Strategy) -> str:
    return started(strategy).wait(60).state


def stopped(strategy: Strategy) -> str:
    run = running(strategy)
    run.stop()
    return run.state


def failed(strategy: Strategy) -> str:
    run = started(
        strategy, faults=[Crash(0, 20)], epochs=10**6
    )  # of few epochs others take all rows, where rank 0 is slow
    with suppress(scaleml.RunFailed):
        run.wait(60)
    return run.state


def killed(strategy: Strategy) -> str:
    run = started(strategy, faults=[Kill(0, 20)])
    with suppress(scaleml.RunFailed):  # what does not recover yet
        run.wait(60)
    return run.state


def interrupted(strategy: Strategy) -> str:
    run = running(strategy)
    main = threading.main_thread().ident
    assert main is not None
    timer = threading.Timer(0.05, signal.pthread_kill, (main, signal.SIGINT))
    timer.start()
    run.wait(60)
    timer.join()
    assert run.interrupted
    return run.state


def beside_a_fork(strategy: Strategy) -> str:
    run = running(strategy)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of Python, of forks with threads
        warnings.simplefilter("ignore", RuntimeWarning)  # of JAX, where another test has imported it
        child = os.fork()
    if child == 0:
        status = 1
        try:
            run.wait(1)
        except RuntimeError:
            gc.collect()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    run.stop()
    return run.state


ENDS: dict[Callable[[Strategy], str], set[str]] = {
    finished: {"finished"},
    stopped: {"stopped"},
    failed: {"failed"},
    killed: {"finished", "failed"},
    interrupted: {"stopped"},
    beside_a_fork: {"stopped"},
}


def kinds() -> Counter[str]:
    """Count this process's descriptors by what they are: sockets, pipes, files by their folder."""
    targets = (one.partition(" ")[2] for one in leaks.descriptors())
    return Counter(target.partition(":")[0] if target[:1] != "/" else str(Path(target).parent) for target in targets)


def tasks_of(client: Client) -> dict[str, int]:
    """Count what Dask holds: at the scheduler, at the client, and of our own books."""

    def count(dask_scheduler: Any) -> dict[str, int]:
        return {
            "tasks": len(dask_scheduler.tasks),
            "of clients": sum(len(c.wants_what) for c in dask_scheduler.clients.values()),
        }

    return {
        **client.run_on_scheduler(count),
        "futures": len(client.futures),
        "runs": len(event_router._by_run),
        "addresses": len(event_router._by_address),
    }


def memory() -> int:
    """Return this process's resident bytes, without what is free in it."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    return psutil.Process().memory_info().rss


def files() -> set[str]:
    """Return the names of temporary files, but for those of other living processes: tests run beside each other."""
    root = int(os.environ[leaks.ROOT])
    return {
        path.name for path in Path(tempfile.gettempdir()).glob("scaleml-*") if not leaks._is_foreign(path.name, root)
    }


class Books:
    """What there is before runs, and must be there afterwards."""

    def __init__(self, client: Client) -> None:
        self.client = client
        client.wait_for_workers(WORKERS, timeout=60)
        for strategy in STRATEGIES:  # what a process keeps from its first run is no leak
            finished(strategy)
        gc.collect()
        self.watch = Watch(client)
        self.threads = leaks.look(sockets=False).threads
        self.kinds, self.tasks, self.files = kinds(), tasks_of(client), files()

    def balance(self) -> None:
        """Fail if there is more now."""
        self.client.wait_for_workers(WORKERS, timeout=60)
        gc.collect()
        self.watch.nothing_left(15)

        def more() -> set[str]:
            left = {f"descriptors: {kind}" for kind in (kinds() - self.kinds) if kinds()[kind] > self.kinds[kind] + 2}
            left |= {f"{what}: {n}" for what, n in tasks_of(self.client).items() if n > self.tasks[what]}
            left |= leaks.look(sockets=False).threads - self.threads
            return left | (files() - self.files)

        assert not (left := leaks.settle(more, 15)), left


@pytest.fixture(scope="module")
def books() -> Books:
    return Books(embedded(WORKERS))


def run_all(ends: list[Callable[[Strategy], str]], runs: int, after: Callable[[int], None] = lambda _: None) -> None:
    for i in range(runs):
        end, strategy = ends[i % len(ends)], STRATEGIES[i // len(ends) % len(STRATEGIES)]
        state = end(strategy)
        assert state in ENDS[end], f"{end.__name__} under {strategy}: {state}"
        after(i)


def test_ten_runs_leave_nothing(books: Books) -> None:
    run_all([*ENDS, stopped, failed, finished, interrupted], 10)
    books.balance()


@pytest.mark.chaos
def test_a_hundred_runs_leave_nothing(books: Books) -> None:
    run_all(list(ENDS), 100)
    books.balance()


@pytest.mark.chaos
def test_memory_stays_where_it_is(books: Books) -> None:
    """By the line through what it is after each five runs, of which the first count not: pools and caches fill."""
    client, ends = books.client, [end for end in ENDS if end is not killed]
    seen: list[dict[str, int]] = []

    def note(i: int) -> None:
        if i % len(ends) == len(ends) - 1:
            seen.append({"client": memory(), **client.run(memory)})

    run_all(ends, 100, note)
    books.balance()
    assert len({frozenset(each) for each in seen}) == 1, "a worker was lost"
    late = seen[len(seen) // 3 :]
    for place in late[0]:
        values = [each[place] for each in late]
        growth = np.polyfit(np.arange(len(values)) * len(ends), values, 1)[0]
        assert growth < GROWTH, f"{place} grows by {growth / 1024:.0f} KB a run: {[value >> 10 for value in values]}"
