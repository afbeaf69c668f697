"""The start of a run on a warm cluster against one round trip of a Dask task, on the same cluster, taking turns.

A start is what passes between calling `scaleml.start` and the moment the run is seen running: data placed, listeners
opened, ranks submitted and connected. A round trip is ``client.submit(f, i).result()``.
"""

import statistics
import threading
import time
from typing import Any

import numpy as np

from .report import Row, alone, compare

ROWS, FEATURES = 4_096, 20
DEADLINE_S = 60.0


def measure(rounds: int) -> list[Row]:
    """Measure in `rounds` rounds, after one that warms up."""
    from distributed import Client, LocalCluster

    random = np.random.default_rng(0)
    x = random.standard_normal((ROWS, FEATURES), dtype=np.float32)
    y = (x[:, 0] > 0).astype(np.int32)
    starts, wholes, trips = [], [], []
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, memory_limit=0, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        for turn in range(rounds + 1):
            trip = [_round_trip(client, (turn, i)) for i in range(50)]
            start, whole = _start(client, x, y)
            if turn:
                trips.append(1e3 * statistics.median(trip))
                starts.append(1e3 * start)
                wholes.append(1e3 * whole)
    peer = "one Dask task round trip"
    return [
        compare("start of a run on a warm cluster, two ranks", peer, starts, trips, "ms", 15, sense="at most"),
        compare("a whole run of one epoch of 16 steps", peer, wholes, trips, "ms"),
    ]


def _round_trip(client: Any, argument: Any) -> float:
    begun = time.perf_counter()
    client.submit(_echo, argument, pure=False).result()
    return time.perf_counter() - begun


def _echo(argument: Any) -> Any:
    return argument


def _start(client: Any, x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Return the seconds until the run is running, and until it is finished."""
    import scaleml
    from scaleml import SGD, AllReduce
    from scaleml.models import LinearModel

    pause = threading.Event()
    begun = time.perf_counter()
    run = scaleml.start(
        LinearModel(),
        x,
        y,
        strategy=AllReduce(),
        optimizer=SGD(0.1),
        epochs=1,
        batch_size=256,
        workers=2,
        client=client,
    )
    while run.state == "starting" and time.perf_counter() - begun < DEADLINE_S:
        pause.wait(0.0005)
    running = time.perf_counter() - begun
    run.wait(DEADLINE_S)
    return running, time.perf_counter() - begun


if __name__ == "__main__":
    alone(measure, __doc__)
