"""Ledger: where the time of every rank went, and who waited for whom."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import numpy as np

from scaleml.telemetry.bundle import mimebundle
from scaleml.telemetry.formatting import percent, seconds
from scaleml.telemetry.history import COLUMNS, History

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

PARTS = ("compute", "wait", "comm", "apply", "other")
_SUMS = (*PARTS, "bytes_sent", "bytes_received", "updates")


@final
class Ledger:
    """The wall time of every rank, split without overlap into compute, wait, comm, apply and other.

    The parts sum to the wall time. A snapshot: a running run gives a new one each time it is asked.

    Parameters
    ----------
    history : History
        What was recorded; or its rows, (n, 20).

    Attributes
    ----------
    ranks : (R,) int array
        The ranks that reported.
    compute, wait, comm, apply, other, wall : (R,) float arrays
        Seconds.
    bytes_sent, bytes_received, updates, samples, staleness : (R,) float arrays
        Sums of each rank; `staleness` is the mean over its updates.
    waits : (R, R) float array
        `waits[i, j]`: seconds that `ranks[i]` waited for `ranks[j]`.

    Examples
    --------
    >>> history = History()
    >>> fast = [0, 10, 1, 5.0, 640, 0.3, 0, 3.0, 1.5, 0.25, 0.125, 0.125, 0, 0, 1, 10, 0, 0, 0, 0]
    >>> slow = [1, 10, 1, 5.0, 640, 0.3, 0, 4.5, 0.0, 0.25, 0.125, 0.125, 0, 0, -1, 10, 0, 0, 0, 0]
    >>> history.append_rows([fast, slow])
    >>> ledger = Ledger(history)
    >>> ledger.wall.tolist()
    [5.0, 5.0]
    >>> ledger.blame()
    ['rank 0 waited for rank 1 for 1.5 s (30% of its time)']
    """

    def __init__(self, history: History | NDArray[np.float64]) -> None:
        rows = (
            history.rows
            if isinstance(history, History)
            else np.asarray(history, dtype=np.float64).reshape(-1, len(COLUMNS))
        )
        column = {name: rows[:, i] for i, name in enumerate(COLUMNS)}
        self.ranks, at = np.unique(column["rank"].astype(np.int64), return_inverse=True)
        n = len(self.ranks)
        sums = {name: np.bincount(at, weights=column[name], minlength=n) for name in _SUMS}
        self.compute, self.wait, self.comm, self.apply, self.other = (sums[name] for name in PARTS)
        self.wall = self.compute + self.wait + self.comm + self.apply + self.other
        self.bytes_sent, self.bytes_received, self.updates = (sums[name] for name in _SUMS[len(PARTS) :])
        self.samples = np.zeros(n)
        self.samples[at] = column["samples"]  # of repeated indices the last one counts: the newest row of each rank
        stale = np.bincount(at, weights=np.nan_to_num(column["staleness"]) * column["updates"], minlength=n)
        self.staleness = stale / np.maximum(self.updates, 1)
        self.waits = np.zeros((n, n))
        known = np.isin(column["waited_for"], self.ranks)
        target = np.searchsorted(self.ranks, column["waited_for"][known])
        np.add.at(self.waits, (at[known], target), column["wait"][known])

    @property
    def workers(self) -> NDArray[np.bool_]:
        """(R,) which ranks train: those that consumed data or computed gradients. The others serve parameters."""
        works = (self.samples > 0) | (self.compute > 0)
        return works if works.any() else np.ones(len(self.ranks), dtype=bool)

    def shares(self) -> dict[str, float]:
        """Each part of the training ranks' wall time: shares that sum to one, NaN before anything was measured."""
        of = self.workers
        wall = float(self.wall[of].sum())
        return {name: float(getattr(self, name)[of].sum()) / wall if wall > 0 else float("nan") for name in PARTS}

    def name(self, i: int) -> str:
        """What to call the rank at index `i`."""
        return f"rank {self.ranks[i]}" if self.workers[i] else f"rank {self.ranks[i]} (a server)"

    @property
    def slow(self) -> int | None:
        """The rank that held up the others (5% of their time or more) while it hardly waited itself, or None.

        Servers wait for work: that holds nobody up.
        """
        if len(self.ranks) < 2:
            return None
        cost = self.waits[self.workers].sum(axis=0) - np.where(self.workers, np.diag(self.waits), 0.0)
        i = int(np.argmax(cost))
        others = np.arange(len(self.ranks)) != i
        if cost[i] < 0.05 * float(self.wall[others & self.workers].sum() or np.inf):
            return None
        own = self.wait[i] / self.wall[i] if self.wall[i] else 0.0
        theirs = cost[i] / float(self.wall[others & self.workers].sum())
        return int(self.ranks[i]) if not self.workers[i] or own < 0.5 * theirs else None

    def slow_sentence(self) -> str | None:
        """What the slow rank cost and how it differs from the others, or None if there is none."""
        slow = self.slow
        if slow is None:
            return None
        i = int(np.searchsorted(self.ranks, slow))
        others = (np.arange(len(self.ranks)) != i) & self.workers
        lost = seconds(float(self.waits[others, i].sum()))
        if not self.workers[i]:
            return f"{self.name(i)} held up the workers: they waited {lost} for it"
        alone = others.sum() == 1
        who, they, their = ("the other rank", "it", "the other's") if alone else ("the others", "they", "their")
        text = f"{self.name(i)} held up {who}: {they} waited {lost} for it"
        if not self.updates[i]:
            return text
        typical = float(np.median(self.compute[others] / np.maximum(self.updates[others], 1)))
        ratio = float(self.compute[i] / self.updates[i]) / typical if typical > 0 else 1.0
        return text + (f", its own steps took {ratio:.1f}x {their} computing time" if ratio >= 1.1 else "")

    def blame(self, at_least: float = 0.01) -> list[str]:
        """Who waited for whom, the longest first.

        Parameters
        ----------
        at_least : float, default 0.01
            Leave out waits shorter than this share of the waiting rank's time.
        """
        waits = [(i, j) for i, j in np.argwhere(self.waits > 0) if self.waits[i, j] >= at_least * self.wall[i]]
        waits.sort(key=lambda pair: -self.waits[pair])
        return [
            f"{self.name(i)} waited for {self.name(j)} for {seconds(float(self.waits[i, j]))} "
            f"({percent(self.waits[i, j] / self.wall[i])} of its time)"
            for i, j in waits
        ]

    def to_frame(self) -> pd.DataFrame:
        """Seconds, bytes, updates and samples by rank, as a pandas frame."""
        import pandas as pd

        columns = {
            name: getattr(self, name)
            for name in (*PARTS, "wall", "bytes_sent", "bytes_received", "updates", "samples", "staleness")
        }
        return pd.DataFrame(columns, index=pd.Index(self.ranks, name="rank"))

    def lines(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """The table as people read it: headings, and cells for each rank."""
        head = ("rank", *PARTS, "wall", "held up")
        cells = [
            (
                self.name(i).removeprefix("rank "),
                *(
                    f"{seconds(float(v))} ({percent(v / self.wall[i] if self.wall[i] else 0.0)})"
                    for v in (getattr(self, p)[i] for p in PARTS)
                ),
                seconds(float(self.wall[i])),
                seconds(float(self.waits[:, i].sum())),
            )
            for i in range(len(self.ranks))
        ]
        return head, cells

    def __str__(self) -> str:
        from scaleml.telemetry.tables import plain

        return "\n".join([plain(*self.lines()), *self.sentences()]) if len(self.ranks) else "Nothing was recorded yet."

    def __repr__(self) -> str:
        shares = ", ".join(f"{name} {percent(share)}" for name, share in self.shares().items())
        return f"<Ledger: {len(self.ranks)} ranks, {shares}>"

    def sentences(self) -> list[str]:
        """The slow rank if there is one, then the longest waits."""
        slow = self.slow_sentence()
        return [text[0].upper() + text[1:] + "." for text in ([slow] if slow else []) + self.blame()[:8]]

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return mimebundle(self)
