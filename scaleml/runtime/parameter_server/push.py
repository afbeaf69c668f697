"""What a server takes in."""

from __future__ import annotations

from typing import Any, NamedTuple


class Push(NamedTuple):
    """A gradient to apply: one worker's, or the mean of all workers'.

    Parameters
    ----------
    gradient : array or SparseGradient
        The mean over its rows, of this server's slice; used up when it is applied.
    staleness : int
        Updates between the parameters it was computed on and now.
    weight : float
        Of the rows that it was taken over.
    source : int
        The worker; -1 for all.
    """

    gradient: Any
    staleness: int
    weight: float
    source: int
