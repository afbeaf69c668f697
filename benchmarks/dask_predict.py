"""Predicting 10^7 rows of a Dask array against two processes that each predict half of them with scikit-learn.

Both hold the same rows of 20 float32 columns in memory, the array as ten chunks of 80 MB on two workers of one thread, and the same
linear model of ten classes. Ours counts everything from ``predict(X)`` to the labels being there, in the workers'
memory: the graph, the scheduler and the tasks. The pair counts its slower process. They take turns.
"""

import time
from typing import Any

import numpy as np

from .pairs import pair
from .report import Row, alone, compare

ROWS, FEATURES, CLASSES, CHUNK = 10_000_000, 20, 10, 1_000_000


def half(rank: int) -> np.ndarray:
    """Return every second chunk of the rows, float32 of shape (ROWS / 2, FEATURES)."""
    return np.concatenate([chunk(i) for i in range(rank, ROWS // CHUNK, 2)])


def chunk(index: int) -> np.ndarray:
    """Return one chunk of the rows."""
    return np.random.default_rng(index).standard_normal((CHUNK, FEATURES), dtype=np.float32)


def fitted() -> Any:
    """Return scikit-learn's model of the ten classes."""
    from sklearn.linear_model import LogisticRegression

    x = np.random.default_rng(0).standard_normal((5_000, FEATURES), dtype=np.float32)
    return LogisticRegression(max_iter=20, tol=1e-2).fit(x, x[:, :CLASSES].argmax(axis=1))


def ours(model: Any) -> Any:
    """Return the same model as scaleml's."""
    from scaleml.engine.trained import TrainedModel
    from scaleml.models import LinearModel, Signature

    network = LinearModel().build(Signature(FEATURES, CLASSES, "multiclass"))
    params = np.concatenate([model.coef_.T.ravel(), model.intercept_]).astype(np.float32)
    return TrainedModel(network, params, model.classes_)


def measure(rounds: int) -> list[Row]:
    """Measure in `rounds` rounds, after one that warms up."""
    import dask.array as da
    from distributed import Client, LocalCluster, wait

    mine, theirs = [], []
    with (
        pair("benchmarks.sklearn_predict", "half") as processes,
        LocalCluster(n_workers=2, threads_per_worker=1, memory_limit=0, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        addresses = sorted(client.scheduler_info()["workers"])
        chunks = [client.submit(chunk, i, workers=[addresses[i % 2]]) for i in range(ROWS // CHUNK)]
        X = da.concatenate(
            [da.from_delayed(part, (CHUNK, FEATURES), np.float32) for part in chunks], allow_unknown_chunksizes=False
        )
        wait(chunks)
        fit = fitted()
        for turn in range(rounds + 1):
            model = ours(fit)
            model.params *= 1 + turn  # the same labels under another name: Dask keeps what it knows already
            begun = time.perf_counter()
            labels = client.persist(model.predict(X))
            wait(labels)
            seconds = time.perf_counter() - begun
            answers = processes.ask({})
            if turn:
                mine.append(ROWS / seconds)
                theirs.append(ROWS / max(answer["seconds"] for answer in answers))
            total = int(labels.sum().compute())
            expected = sum(answer["sum"] for answer in answers)
            if abs(total - expected) > ROWS // 10_000:  # ties of float32 aside
                raise RuntimeError(f"the labels add up to {total} here and {expected} there")
            del labels
    return [
        compare(
            "Dask predict of 10^7 rows, two workers",
            "two scikit-learn processes, half each",
            mine,
            theirs,
            "samples/s",
            0.95,
        )
    ]


if __name__ == "__main__":
    alone(measure, __doc__)
