"""Recovery from a killed worker against Dask's own floor, and what being able to recover costs a run that nobody disturbs.

The floor: a worker that holds a part of a persisted array is killed; it ends when the cluster has its workers again and the array is
whole. Ours begins with the same kill in mid-run, on the same array, and ends when the ranks are past the step at which they lost one. Both
take turns on one cluster. The cost is the time of the timed epochs with `on_worker_lost="replace"` over that with `"raise"`.
"""

import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from . import ours
from .problems import PROBLEMS
from .report import Row, alone, compare

ROWS, FEATURES, BLOCK = 100_000, 50, 10_000
DEADLINE_S = 60.0
_PAUSE = threading.Event()


def measure(rounds: int) -> list[Row]:
    """Measure in `rounds` rounds, after one that warms up."""
    return [_recovery(rounds), _overhead(rounds)]


def _recovery(rounds: int) -> Row:
    import dask
    import dask.array as da
    from distributed import Client, LocalCluster, wait

    mine, floor = [], []
    random = np.random.default_rng(0)
    x = random.standard_normal((ROWS, FEATURES), dtype=np.float32)
    # Dask looks so long after a loss whether the worker is back, and closes its nanny where, by chance, the next kill has just come.
    dask.config.set({"distributed.deploy.lost-worker-timeout": "1 hour"})
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, memory_limit=0, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        X = da.from_array(x, chunks=(BLOCK, -1)).map_blocks(np.ascontiguousarray).persist()
        wait(X)
        for turn in range(rounds + 1):
            bare, run = _floor(client, X), _ours(client, X, x[:, 0] > 0)
            if turn:
                floor.append(1e3 * bare)
                mine.append(1e3 * run)
    what = "back to full speed after SIGKILL of one of two workers"
    return compare(what, "Dask: worker replaced, data recomputed", mine, floor, "ms", 1.5, sense="at most")


def _floor(client: Any, X: Any) -> float:
    from distributed import wait

    wait(X)
    address = _kill(client, 0)
    begun = time.perf_counter()
    _until(lambda: address not in client.scheduler_info(n_workers=-1)["workers"])
    client.wait_for_workers(2, timeout=DEADLINE_S)
    wait(X, timeout=DEADLINE_S)
    return time.perf_counter() - begun


def _ours(client: Any, X: Any, y: np.ndarray) -> float:
    import scaleml

    _until(lambda: len(client.scheduler_info(n_workers=-1)["workers"]) == 2)
    run = scaleml.start(scaleml.LinearModel(), X, y, epochs=10**6, batch_size=2_048, workers=2, client=client)
    _until(lambda: run.state == "running" and run.train_seconds > 1.0)
    _kill(client, 1)
    begun = time.perf_counter()
    # The last phase ends with the first row of a step beyond the one at which a rank was lost.
    _until(lambda: any("replayed" in recovery.phases for recovery in run.history.recoveries))
    seconds = time.perf_counter() - begun
    run.stop()
    return seconds


def _kill(client: Any, index: int) -> str:
    """Kill one of the workers' processes, and return its address."""
    addresses = sorted(client.scheduler_info(n_workers=-1)["workers"])
    os.kill(client.run(os.getpid, workers=[addresses[index]])[addresses[index]], signal.SIGKILL)
    return addresses[index]


def _until(condition: Callable[[], bool]) -> None:
    begun = time.perf_counter()
    while not condition():
        if time.perf_counter() - begun > DEADLINE_S:
            raise TimeoutError("nothing has come of it")
        _PAUSE.wait(0.002)


def _overhead(rounds: int) -> Row:
    from scaleml import AllReduce

    problem = PROBLEMS["mlp"]
    seconds: dict[str, list[float]] = {"replace": [], "raise": []}
    for turn in range(rounds + 1):
        for choice in sorted(seconds, reverse=bool(turn % 2)):
            run = ours.train(problem, AllReduce(), 2, on_worker_lost=choice)
            if turn:
                seconds[choice].append(1e3 * ours.timed_seconds(run, problem.epochs))
    what = "two ranks on MLP 784-256-10 that could recover"
    return compare(what, "the same that could not", seconds["replace"], seconds["raise"], "ms", 1.03, sense="at most")


if __name__ == "__main__":
    alone(measure, __doc__)
