"""Scalars: the few numbers that loggers plot of the rows of a history, and the names that they have there."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, final

import numpy as np

from scaleml.callbacks.base import Evaluation, FollowedRun

if TYPE_CHECKING:
    from scaleml.callbacks.base import Rows

SECONDS: Final = ("compute", "wait", "comm", "apply", "other")


@final
class Scalars:
    """Sums up what a run's training ranks did since the last time.

    Parameters
    ----------
    run : FollowedRun

    Attributes
    ----------
    step : int
        The most steps that a rank has taken.
    samples : float
        Rows that all ranks together have consumed.
    """

    def __init__(self, run: FollowedRun) -> None:
        self._run = run
        self.step = 0
        self.samples = 0.0
        self._time = 0.0
        self._consumed: dict[float, float] = {}

    def of_rows(self, rows: Rows) -> dict[str, float]:
        """Return what new rows come to; what is not known is left out.

        ``train/loss`` is the mean over updates, ``time/...`` are shares of the ranks' time.
        """
        trains = rows["rank"] < self._run.workers  # servers tell of their time only
        if not trains.any():
            return {}
        table = {name: column[trains] for name, column in rows.items()}
        before, began = self.samples, self._time
        self._consumed.update(zip(table["rank"].tolist(), table["samples"].tolist(), strict=True))
        self.samples = sum(self._consumed.values())
        self.step = max(self.step, int(table["step"].max()))
        self._time = max(began, float(table["time"].max()))
        seconds = {name: float(table[name].sum()) for name in SECONDS}
        whole = sum(seconds.values())
        found = {
            "train/loss": _mean(table["loss"], table["updates"]),
            "train/epoch": float(table["epoch"].max()),
            "train/samples": self.samples,
            "train/samples_per_s": (self.samples - before) / (self._time - began) if self._time > began else np.nan,
            "train/staleness": _mean(table["staleness"], table["updates"]),
            "train/seconds": self._time,
            **{f"time/{name}": value / whole if whole else np.nan for name, value in seconds.items()},
        }
        return {name: value for name, value in found.items() if not np.isnan(value)}

    def of_evaluation(self, evaluation: Evaluation) -> dict[str, float]:
        """Return the held-out loss and score, the latter under its name."""
        score = re.sub(r"[^\w.-]+", "_", self._run.score_name) or "score"
        found = {"held_out/loss": evaluation.loss, f"held_out/{score}": evaluation.score}
        return {name: value for name, value in found.items() if not np.isnan(value)}


def name_of(run: FollowedRun) -> str:
    """Return how loggers call a run: its strategy, and in a comparison the round."""
    return run.label if run.place is None else f"{run.label}, {run.place}"


def _mean(
    values: np.ndarray[tuple[int], np.dtype[np.float64]], weights: np.ndarray[tuple[int], np.dtype[np.float64]]
) -> float:
    known = ~np.isnan(values) & (weights > 0)
    return float(np.average(values[known], weights=weights[known])) if known.any() else np.nan
