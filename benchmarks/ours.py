"""Our side of the comparisons with bare loops: a run on the embedded cluster, and how long its timed epochs took."""

import itertools
from typing import Any

import numpy as np

from .problems import SEED, Problem


def train(problem: Problem, strategy: Any, workers: int, **settings: Any) -> Any:
    """Train on `workers` ranks, each with `problem.batch` rows a step, and return the finished run."""
    import scaleml
    from scaleml import SGD

    x, y = problem.data()
    return scaleml.train(
        problem.model(),
        x,
        y,
        strategy=strategy,
        optimizer=SGD(problem.rate),
        epochs=problem.epochs,
        batch_size=problem.batch * workers,
        workers=workers,
        validation=None,
        seed=SEED,
        **settings,
    )


def orders(problem: Problem, workers: int) -> list[np.ndarray]:
    """Return the rows of each rank in the order in which scaleml takes them."""
    from scaleml.data.split import hold_out

    rows, _ = hold_out(problem.rows, 0.0, SEED)
    bounds = [len(rows) * rank // workers for rank in range(workers + 1)]
    return [rows[begin:end] for begin, end in itertools.pairwise(bounds)]


def timed_seconds(run: Any, last_epoch: int) -> float:
    """Return the seconds from the end of the first epoch to the end of the last, on the slowest rank's clock.

    A history has a row for every few milliseconds, not one for every step: the end of the first epoch is read off the
    line between two rows.
    """
    history = run.history
    ranks, epochs, times = history["rank"], history["epoch"], history["time"]
    seconds = []
    for rank in np.unique(ranks):
        own = ranks == rank
        first, last = np.interp([1.0, last_epoch], epochs[own], times[own])
        seconds.append(last - first)
    return float(max(seconds))
