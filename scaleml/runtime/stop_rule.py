"""The stop rule: when a run ends before its last epoch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class StopRule:
    """When to end before the last epoch, in scikit-learn's terms; all ranks come to the same decision.

    Parameters
    ----------
    tol : float or None
        An epoch that is not better than the best one by this much counts as one without improvement. None: all epochs
        are trained, and only noted.
    n_iter_no_change : int
        So many of them in a row end the run; with the schedule ``"adaptive"`` they divide the learning rate by 5 first,
        until it is as small as it gets.
    monitor : {"loss", "score"}
        The mean training objective of the epoch, or the held-out score after it.
    keep_best : bool
        Whether the run gives the parameters of the best held-out score rather than the last ones.
    """

    tol: float | None = 1e-3
    n_iter_no_change: int = 5
    monitor: Literal["loss", "score"] = "loss"
    keep_best: bool = False
    targets: int = 1
    """The loss is the sum over so many targets, and counts here as scikit-learn's perceptrons count it: as their mean."""
    power_t: float | None = None
    """With the schedule ``"adaptive"``: instead, the learning rate is divided by ``(rows so far + 1) ** power_t`` after each
    epoch, as ``"invscaling"`` of scikit-learn's perceptrons does."""
