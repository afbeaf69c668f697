"""Predicting 10^7 rows of a Dask array against two processes that each predict half of them with scikit-learn.

Both hold the same rows of 20 float32 columns in memory, the array as ten chunks of 80 MB on two workers of one thread, and the same
linear model of ten classes: ours once as a run gives it (`run.model`), once as an estimator, `SGDClassifier`. Ours counts everything
from ``predict(X)`` to the labels being there, in the workers' memory: the graph, the scheduler and the tasks. The pair counts its
slower process. They take turns.
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


def of_a_run(fit: Any, times: int) -> Any:
    """Return the same model as a run would give it: the same labels, for all its parameters are `times` as large."""
    from scaleml.api.trained_model import TrainedModel
    from scaleml.models import LinearModel, Signature

    signature = Signature(FEATURES, CLASSES, "multiclass")
    network = LinearModel().build(signature)
    params = times * np.concatenate([fit.coef_.T.ravel(), fit.intercept_]).astype(np.float32)
    return TrainedModel(network, signature, params, fit.classes_)


def estimator(fit: Any, times: int) -> Any:
    """Return the same model as scaleml's estimator."""
    from scaleml.linear_model import SGDClassifier

    x = np.random.default_rng(0).standard_normal((100, FEATURES), dtype=np.float32)
    made = SGDClassifier(max_iter=1, tol=None).fit(x, np.arange(100) % CLASSES)
    made.coef_, made.intercept_ = (times * part.astype(np.float32) for part in (fit.coef_, fit.intercept_))
    return made


def measure(rounds: int) -> list[Row]:
    """Measure in `rounds` rounds, after one that warms up."""
    import dask.array as da
    from distributed import Client, LocalCluster, wait

    kinds = {"": of_a_run, ", by SGDClassifier": estimator}
    mine: dict[str, list[float]] = {kind: [] for kind in kinds}
    theirs, fit = [], fitted()
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
        for turn in range(rounds + 1):
            answers = processes.ask({})
            expected = sum(answer["sum"] for answer in answers)
            if turn:
                theirs.append(ROWS / max(answer["seconds"] for answer in answers))
            for kind, make in kinds.items():
                model = make(fit, 1 + turn)  # another name each turn, for Dask keeps what it knows already
                begun = time.perf_counter()
                labels = client.persist(model.predict(X))
                wait(labels)
                seconds = time.perf_counter() - begun
                if turn:
                    mine[kind].append(ROWS / seconds)
                total = int(labels.sum().compute())
                if abs(total - expected) > ROWS // 10_000:  # ties of float32 aside
                    raise RuntimeError(f"the labels add up to {total} here and {expected} there")
                del labels
    what, peer = "Dask predict of 10^7 rows, two workers", "two scikit-learn processes, half each"
    return [compare(what + kind, peer, mine[kind], theirs, "samples/s", 0.95) for kind in kinds]


if __name__ == "__main__":
    alone(measure, __doc__)
