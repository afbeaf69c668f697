"""Columns: what the numbers of a history's tables are, and how its rows add up.

Seconds, bytes and estimates of the gradient's noise are sums over a row's steps, so rows may be added; see `History`.

``noise``, ``signal``
    Sums of estimates of the trace of the covariance of one data row's gradient, and of the squared norm of the mean gradient;
    their ratio is the gradient noise scale, see `telemetry.noise_scale`.
``noise_weight``
    What both are sums over: they are divided by it.
``biased``
    How many of these estimates come from successive gradients of one rank, on parameters that had moved in between.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

COLUMNS = (
    "rank",
    "step",
    "epoch",
    "time",
    "samples",
    "loss",
    "staleness",
    "compute",
    "wait",
    "comm",
    "apply",
    "other",
    "bytes_sent",
    "bytes_received",
    "waited_for",
    "updates",
    "noise",
    "signal",
    "noise_weight",
    "biased",
)
EVALUATION = ("time", "samples", "step", "loss", "score")
EPOCH = ("number", "loss", "score", "is_last")
Measures = tuple[float, ...]
"""Numbers of one evaluation, in the order of `EVALUATION`, or of one epoch, of `EPOCH`."""

AT = {name: i for i, name in enumerate(COLUMNS)}
SUMMED = [
    AT[name]
    for name in (
        *("compute", "wait", "comm", "apply", "other", "bytes_sent", "bytes_received", "updates"),
        *("noise", "signal", "noise_weight", "biased"),
    )
]
_MEANS = [AT[name] for name in ("loss", "staleness")]


def last_step(data: bytes) -> int:
    """Return the last step in rows as `History.append_bytes` takes them; 0 if there are none."""
    rows = np.frombuffer(data, dtype=np.float64).reshape(-1, len(COLUMNS))
    return int(rows[:, AT["step"]].max(initial=0))


def last_place(data: bytes) -> tuple[int, int]:
    """Return the step and the rows of its own that a rank had come to in its rows as `History.append_bytes` takes them."""
    rows = np.frombuffer(data, dtype=np.float64).reshape(-1, len(COLUMNS))
    return int(rows[-1, AT["step"]]), int(rows[-1, AT["samples"]])


def merge_pairs(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Merge neighbouring rows of each rank two by two; the order of arrival stays."""
    order = np.argsort(rows[:, AT["rank"]], kind="stable")
    by_rank = rows[order]
    first_of_rank = np.flatnonzero(np.r_[True, np.diff(by_rank[:, AT["rank"]]) != 0])
    place = np.arange(len(by_rank)) - np.repeat(first_of_rank, np.diff(np.r_[first_of_rank, len(by_rank)]))
    starts = np.flatnonzero(place % 2 == 0)
    ends = np.r_[starts[1:], len(by_rank)] - 1
    merged = by_rank[ends]
    merged[:, SUMMED] = np.add.reduceat(by_rank[:, SUMMED], starts, axis=0)
    for mean in _MEANS:  # a row without a loss (NaN) adds nothing to its neighbour's
        known = np.isfinite(by_rank[:, mean])
        weights = np.where(known, np.maximum(by_rank[:, AT["updates"]], 1e-12), 0.0)
        sums = np.add.reduceat(np.where(known, by_rank[:, mean], 0.0) * weights, starts)
        total = np.add.reduceat(weights, starts)
        merged[:, mean] = np.where(total > 0, sums / np.where(total > 0, total, 1.0), np.nan)
    longer = np.where(by_rank[starts, AT["wait"]] > by_rank[ends, AT["wait"]], starts, ends)
    merged[:, AT["waited_for"]] = by_rank[longer, AT["waited_for"]]
    return np.asarray(merged[np.argsort(order[ends], kind="stable")])
