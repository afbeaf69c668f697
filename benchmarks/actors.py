"""Asynchronous updates a second through one server: `ParameterServer("async")` against an actor of Dask, and one of Ray.

All three train the same linear model on the same rows with two workers and one server, one update a push: a worker computes the
mean gradient of 16 rows, pushes it and gets the parameters back, and an update counts when its answer has been taken in. The
actors are what one would write by hand: an object with the parameters and a method that takes a gradient and returns them. The
batch is small, so that it is the pushes that are measured, but the gradients count, too; half of a run warms up. Each is measured
twice: every answer awaited, and with one answer owing while the next gradient is computed (`overlap=True`; of the actors, one
call's future kept). Dask's actor and scaleml's ranks are on one cluster, and take turns.

All of it is on one host. There scaleml's workers share the server's memory and do its work themselves, one at a time; between hosts
their pushes are messages, which an actor's always are.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from typing import Any, Final

import numpy as np

from .report import Row, alone, compare, missing

WORKERS: Final = 2
BATCH: Final = 16
"""Rows of one push."""
ROWS: Final = 2_048
RATE: Final = 0.01
SECONDS: Final = 1.0
"""Of one measurement, after as long a warm-up."""
SIZES: Final = {1_023: "4 KB", 262_143: "1 MB"}
"""Columns of X; with the intercept, the parameters."""
CASES: Final = [(features, overlap) for features in SIZES for overlap in (False, True)]
TARGETS: Final = {"a Dask actor": 20.0, "a Ray actor": 5.0}
ATTEMPTS: Final = 3
"""To start Ray: its agents have 15 seconds to come up, which on a busy machine they miss."""

Answer = Callable[[], np.ndarray]
"""Waits for the answer to a push: the parameters."""
Rates = dict[tuple[int, bool], list[float]]


class Server:
    """The hand-written server: parameters, and the method that all workers call."""

    def __init__(self, size: int) -> None:
        self.w = np.zeros(size, np.float32)

    def push(self, g: np.ndarray | None) -> np.ndarray:
        """Apply a gradient, return the parameters."""
        if g is not None:
            self.w -= RATE * g
        return self.w


def data(features: int, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a worker's rows, the same at every call."""
    random = np.random.default_rng(rank)
    x = random.standard_normal((ROWS if features < 10_000 else 8 * BATCH, features), dtype=np.float32)
    return x, (x[:, 0] > 0).astype(np.float32)


def work(push: Callable[[np.ndarray | None], Answer], features: int, rank: int, overlap: bool) -> float:
    """Be one worker of a hand-written server; return its updates a second."""
    from scaleml.models import LinearModel, Signature

    network = LinearModel(penalty=None).build(Signature(features))
    x, y = data(features, rank)
    g, w = np.empty(network.size, np.float32), np.array(push(None)())
    owing: list[Answer] = []
    begun = time.perf_counter()
    pushes, counting = 0, begun
    while (now := time.perf_counter()) - begun < 2 * SECONDS:
        if pushes and now - begun < SECONDS:
            pushes, counting = 0, now
        at = BATCH * pushes % (len(x) - BATCH + 1)
        _, weight = network.loss_grad(w, x[at : at + BATCH], y[at : at + BATCH], None, g)
        g *= 1.0 / weight
        owing.append(push(g.copy() if overlap else g))
        if len(owing) > overlap:
            w = owing.pop(0)()
        pushes += 1
    return pushes / (time.perf_counter() - counting)


def measure(rounds: int) -> list[Row]:
    """Measure in `rounds` rounds."""
    from distributed import Client, LocalCluster

    ours: Rates = {case: [] for case in CASES}
    dask: Rates = {case: [] for case in CASES}
    with (
        LocalCluster(n_workers=WORKERS, threads_per_worker=1, memory_limit=0, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        for _ in range(rounds):
            for case in CASES:
                ours[case].append(_of_scaleml(client, *case))
                dask[case].append(_of_dask(client, *case))
    ray, why = _of_ray(rounds)
    rows = []
    for peer, results in (("a Dask actor", dask), ("a Ray actor", ray)):
        for features, overlap in CASES:
            how = "an answer owing" if overlap else "each answer awaited"
            what = f"asynchronous updates a second, two workers, {SIZES[features]} of parameters, {how}"
            target = TARGETS[peer] if features == min(SIZES) else None
            if results:
                case = features, overlap
                rows.append(compare(what, peer, ours[case], results[case], "updates/s", target))
            else:
                rows.append(missing(what, peer, target, why))
    return rows


def _of_scaleml(client: Any, features: int, overlap: bool) -> float:
    """Return the server's updates a second in the second half of a run that is stopped after its time."""
    import scaleml
    from scaleml import SGD, LinearModel, ParameterServer

    x, y = (np.concatenate(parts) for parts in zip(*(data(features, rank) for rank in range(WORKERS)), strict=True))
    run = scaleml.start(
        LinearModel(penalty=None),
        x,
        y,
        strategy=ParameterServer("async", overlap=overlap),
        optimizer=SGD(RATE),
        epochs=10**9,
        batch_size=BATCH * WORKERS,
        workers=WORKERS,
        client=client,
    )
    while run.train_seconds < 2 * SECONDS:
        with suppress(TimeoutError):
            run.wait(SECONDS / 10)
    run.stop()
    history = run.history
    counted = (history["rank"] == WORKERS) & (history["time"] > SECONDS)
    clock = history["time"][counted]
    return float(history["updates"][counted][1:].sum() / (clock.max() - clock.min()))


def _of_dask(client: Any, features: int, overlap: bool) -> float:
    """Return the updates a second of all workers: two tasks that call one actor, which lives beside the second."""
    workers = list(client.scheduler_info()["workers"])
    server = client.submit(Server, features + 1, actor=True, workers=workers[-1:], pure=False).result()
    tasks = [
        client.submit(_dask_worker, server, features, rank, overlap, workers=[address], pure=False)
        for rank, address in enumerate(workers)
    ]
    return float(sum(client.gather(tasks)))


def _dask_worker(server: Any, features: int, rank: int, overlap: bool) -> float:
    from distributed.worker import secede

    secede()  # else the actor's calls, on the same worker, wait for this task's end
    return work(lambda g: server.push(g).result, features, rank, overlap)


def _of_ray(rounds: int) -> tuple[Rates, str]:
    """Return the updates a second of two Ray tasks that call one Ray actor, by case; or nothing, and why."""
    if find_spec("ray") is None:
        return {}, "pip install ray"
    import ray

    for attempt in range(ATTEMPTS):
        try:
            ray.init(num_cpus=WORKERS + 1, include_dashboard=False, log_to_driver=False, object_store_memory=2**27)
            break
        except Exception as error:  # noqa: BLE001 - its own, and bare ones: the other rows still say something
            ray.shutdown()
            if attempt == ATTEMPTS - 1:
                return {}, f"Ray does not start here: {error}"
    try:
        results: Rates = {case: [] for case in CASES}
        actor: Any = ray.remote(Server)
        task = ray.remote(_ray_worker)
        for _ in range(rounds):
            for case in CASES:
                server = actor.remote(case[0] + 1)
                rates = ray.get([task.remote(server, case[0], rank, case[1]) for rank in range(WORKERS)])
                results[case].append(float(sum(rates)))
                ray.kill(server)
        return results, ""
    finally:
        ray.shutdown()


def _ray_worker(server: Any, features: int, rank: int, overlap: bool) -> float:
    import ray

    def push(g: np.ndarray | None) -> Answer:
        call: Any = server.push.remote(g)
        return lambda: np.asarray(ray.get(call))

    return work(push, features, rank, overlap)


if __name__ == "__main__":
    alone(measure, __doc__)
