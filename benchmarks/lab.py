"""A run watched live in a lab against the same run unwatched, on the same cluster, taking turns.

Two ranks of an MLP, for some seconds. The lab repaints its panels ten times a second, as far as a page could see them: everything
is computed, set and serialised; no browser draws it. Both sides count from the call to the end of the comparison.
"""

import time
from typing import Any

import numpy as np

from .report import Row, alone, compare

ROWS, FEATURES, HIDDEN, EPOCHS, BATCH = 20_000, 200, 256, 80, 256


def measure(rounds: int) -> list[Row]:
    """Measure in `rounds` rounds, after one that warms up."""
    from distributed import Client, LocalCluster

    random = np.random.default_rng(0)
    x = random.standard_normal((ROWS, FEATURES), dtype=np.float32)
    y = (x @ random.standard_normal(FEATURES) > 0).astype(np.int32)
    watched, unwatched, rates = [], [], []
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, memory_limit=0, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        for turn in range(rounds + 1):
            alone_s = _unwatched(client, x, y)
            watched_s, rate = _watched(client, x, y)
            if turn:
                unwatched.append(alone_s)
                watched.append(watched_s)
                rates.append(rate)
    note = f"{float(np.median(rates)):.1f} repaints a second"
    return [
        compare("a run watched in a lab", "unwatched", watched, unwatched, "s", 1.05, sense="at most", note=note),
    ]


def _settings(client: Any) -> dict[str, Any]:
    return {"client": client, "workers": 2, "epochs": EPOCHS, "batch_size": BATCH, "repeats": 1}


def _unwatched(client: Any, x: np.ndarray, y: np.ndarray) -> float:
    import scaleml

    begun = time.perf_counter()
    scaleml.compare(scaleml.MLP((HIDDEN,)), x, y, [scaleml.AllReduce()], **_settings(client))
    return time.perf_counter() - begun


def _watched(client: Any, x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Return the seconds of a run in a lab, and its repaints a second."""
    import scaleml

    with scaleml.Lab(scaleml.MLP((HIDDEN,)), x, y, strategies=[scaleml.AllReduce()], **_settings(client)) as lab:
        before = lab.repaints
        begun = time.perf_counter()
        lab.start().wait()
        seconds = time.perf_counter() - begun
        return seconds, (lab.repaints - before) / seconds


if __name__ == "__main__":
    alone(measure, __doc__)
