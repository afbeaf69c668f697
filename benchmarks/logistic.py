"""`LogisticRegression` on a Dask array of 400,000 x 200, two workers: whole fits to the same objective, by the same `tol`.

The array lies on the workers in `PARTS` blocks, float64; scikit-learn's is in memory, with a BLAS thread a core. All minimise the same
objective (C = 1, intercept) from 0, and the objectives that they end at are compared: ours within 1e-6 of scikit-learn's, or the row
says so. Ours is the whole `fit`, which brings the blocks to files of the workers first; beside it stands the training clock alone.
dask-ml's lbfgs takes minutes: it fits once, in the first round, and its row is of that round.
"""

from __future__ import annotations

import os
import time
import warnings
from importlib.util import find_spec
from typing import Any

import numpy as np

from .report import Row, alone, compare, missing

ROWS, FEATURES, NORM, NARROWEST, PARTS = 400_000, 200, 4.0, 0.1, 20
CLOSE = 1e-6


def data() -> tuple[Any, Any]:
    """Return X and y of 0 and 1, the same at every call."""
    random = np.random.default_rng(0)
    x = random.standard_normal((ROWS, FEATURES))
    teacher = random.standard_normal(FEATURES)
    teacher *= NORM / np.linalg.norm(teacher)
    y = (random.random(ROWS) < 1 / (1 + np.exp(-(x @ teacher)))).astype(np.float64)
    x *= np.geomspace(1, NARROWEST, FEATURES)
    return x, y


def objective(model: Any, x: Any, y: Any) -> float:
    """Return what lbfgs minimises: the mean loss and the penalty of C = 1."""
    coef = np.ravel(model.coef_)
    scores = x @ coef + float(np.ravel(model.intercept_)[0])
    return float(np.logaddexp(0, np.where(y > 0, -scores, scores)).mean() + coef @ coef / (2 * len(y)))


def measure(rounds: int) -> list[Row]:
    """Measure in `rounds` rounds."""
    from distributed import Client, LocalCluster

    from scaleml.linear_model import LogisticRegression

    x, y = data()
    ours: list[float] = []
    training: list[float] = []
    theirs: list[float] = []
    dask_ml: list[float] = []
    away = away_of_dask_ml = 0.0
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, memory_limit=0, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        lazy_x, lazy_y = _placed(x, y, client)
        LogisticRegression(C=0.1).fit(lazy_x[:1000], lazy_y[:1000])  # both workers import what they need
        for _ in range(rounds):
            seconds, reference = _scikit_learn(x, y)
            theirs.append(seconds)
            begun = time.perf_counter()
            found = LogisticRegression().fit(lazy_x, lazy_y)
            ours.append(time.perf_counter() - begun)
            training.append(_training(x, y, client))
            best = objective(reference, x, y)
            away = max(away, abs(objective(found, x, y) / best - 1))
            if not dask_ml and find_spec("dask_ml") is not None:
                seconds, peer = _dask_ml(lazy_x, lazy_y)
                dask_ml.append(seconds)
                away_of_dask_ml = objective(peer, x, y) / best - 1
    note = f"objective within {away:.0e} of scikit-learn's" + ("" if away <= CLOSE else f", not {CLOSE:g}")
    what = "LogisticRegression, 400,000 x 200"
    rows = [
        compare(
            f"{what}: fit of a Dask array",
            "scikit-learn's lbfgs, all cores",
            ours,
            theirs,
            "s",
            1.5,
            inverse=True,
            note=note,
        ),
        compare(f"{what}: training alone", "scikit-learn's lbfgs, all cores", training, theirs, "s", inverse=True),
    ]
    if not dask_ml:
        return [*rows, missing(f"{what}: fit of a Dask array", "dask-ml's lbfgs", 10, "pip install dask-ml")]
    note = f"one round; its objective is {away_of_dask_ml:.0e} above"
    return [
        *rows,
        compare(f"{what}: fit of a Dask array", "dask-ml's lbfgs", ours[:1], dask_ml, "s", 10, inverse=True, note=note),
    ]


def _placed(x: Any, y: Any, client: Any) -> tuple[Any, Any]:
    """Return X and y as Dask arrays whose blocks lie on the workers."""
    import dask.array as da

    size, arrays = len(x) // PARTS, []
    for whole in (x, y):
        parts = client.scatter([whole[a : a + size] for a in range(0, len(x), size)], hash=False)
        shape = (size, *whole.shape[1:])
        arrays.append(da.concatenate([da.from_delayed(part, shape, whole.dtype) for part in parts]))
    return arrays[0], arrays[1]


def _scikit_learn(x: Any, y: Any) -> tuple[float, Any]:
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    with threadpool_limits(os.cpu_count()):
        begun = time.perf_counter()
        model = LogisticRegression().fit(x, y)
        return time.perf_counter() - begun, model


def _training(x: Any, y: Any, client: Any) -> float:
    """Return the training clock of the same fit: from the first evaluation to the last."""
    from scaleml import LinearModel, train
    from scaleml.optim import LBFGS

    model = LinearModel(alpha=1 / len(x), dtype="float64")
    run = train(model, x, y, optimizer=LBFGS(), epochs=250, client=client, progress=False)
    return float(run.history.clock(2))


def _dask_ml(x: Any, y: Any) -> tuple[float, Any]:
    from dask_ml.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        begun = time.perf_counter()
        model = LogisticRegression(solver="lbfgs", C=1.0, max_iter=100).fit(x, y)
        return time.perf_counter() - begun, model


if __name__ == "__main__":
    alone(measure, __doc__)
