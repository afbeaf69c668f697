"""Slow links of a run: which were slowed on purpose, and what that cost beyond what communication takes otherwise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

import numpy as np
from numpy.typing import NDArray

from scaleml.faults import Bandwidth, Latency
from scaleml.faults.network import SlowLink
from scaleml.runtime.serialization import fault_from
from scaleml.telemetry import COLUMNS, Ledger
from scaleml.telemetry.formatting import listing, seconds, size
from scaleml.telemetry.history import Change

ENOUGH = 5
"""Updates of a rank that tell what communication takes it otherwise."""
_AT = {name: i for i, name in enumerate(COLUMNS)}
_COST = [_AT["comm"], _AT["updates"]]


def in_words(link: SlowLink) -> str:
    """Say what it does.

    >>> in_words(Latency(rank=1, seconds=0.02))
    'what rank 1 sends arrives 20 ms later'
    """
    to = "" if link.to is None else f" to rank {link.to}"
    if isinstance(link, Latency):
        return f"what rank {link.rank} sends{to} arrives {seconds(link.seconds)} later"
    assert isinstance(link, Bandwidth)
    return f"rank {link.rank} sends at most {size(link.bytes_per_second)} a second{to}"


@final
class SlowLinks:
    """The slow links of one run, and each rank's communication with them and without."""

    def __init__(self) -> None:
        self.slow: dict[tuple[type[SlowLink], int, int | None], SlowLink] = {}
        self._heard = 0
        self._spans: list[list[float]] = []
        self._with: dict[int, NDArray[np.float64]] = {}
        self._without: dict[int, NDArray[np.float64]] = {}

    def hear(self, changes: Sequence[Change]) -> None:
        """Take in what changed in mid-run; to be told before the rows that follow."""
        for change in changes[self._heard :]:
            self._heard += 1
            fault = None if change.fault is None else fault_from(dict(change.fault))
            if isinstance(fault, SlowLink):
                self._turn(fault, change.time)

    def add(self, rows: NDArray[np.float64]) -> None:
        """Take in new rows of the history."""
        slow = np.zeros(len(rows), dtype=bool)
        for begin, end in self._spans:
            slow |= (rows[:, _AT["time"]] > begin) & (rows[:, _AT["time"]] <= end)
        for sums, part in ((self._with, rows[slow]), (self._without, rows[~slow])):
            ranks = part[:, _AT["rank"]].astype(np.int64)
            for rank in set(ranks.tolist()):
                sums[rank] = sums.get(rank, np.zeros(2)) + part[ranks == rank][:, _COST].sum(axis=0)
        for link in list(self.slow.values()):
            until = math.inf if link.until is None else link.until
            past = rows[(rows[:, _AT["rank"]] == link.rank) & (rows[:, _AT["step"]] >= until)]
            if len(past):
                self._end(link, float(past[0, _AT["time"]]))

    def cost(self, rank: int) -> float:
        """Seconds of communication that slow links have cost a rank so far, beyond what so many updates take otherwise."""
        comm, updates = self._with.get(rank, np.zeros(2)).tolist()
        return max(0.0, comm - (updates * self._usual(rank) if self._knows(rank) else 0.0))

    def sentence(self, total: Ledger) -> str | None:
        """Say whose links are slow and what that has cost; None if none ever were."""
        workers = total.ranks[total.workers].tolist()
        if not self._spans or not workers:
            return None
        slow = listing([in_words(link) for link in self.slow.values()]) if self.slow else "links were slow for a while"
        if len(total.ranks) == 1:
            return f"{slow}, but it talks to nobody"
        costs = {rank: self.cost(rank) for rank in workers}
        worst = max(costs, key=lambda rank: costs[rank])
        even = min(costs.values()) > 0.5 * costs[worst]
        who, lost = ("each rank", sum(costs.values()) / len(costs)) if even else (f"rank {worst}", costs[worst])
        if self._knows(worst):
            return f"{slow}: that has cost {who} {seconds(lost)} of communication"
        return f"{slow}: communication has taken {who} {seconds(lost)} since then"

    def _turn(self, link: SlowLink, time: float) -> None:
        if link.lifts:
            self._end(link, time)
            return
        if not self.slow:
            self._spans.append([time, math.inf])
        self.slow[type(link), link.rank, link.to] = link

    def _end(self, link: SlowLink, time: float) -> None:
        """End what slows this link, or, where none is named, all of its rank."""
        gone = [key for key in self.slow if key[:2] == (type(link), link.rank) and link.to in (None, key[2])]
        for key in gone:
            del self.slow[key]
        if gone and not self.slow:
            self._spans[-1][1] = time

    def _knows(self, rank: int) -> bool:
        return rank in self._without and float(self._without[rank][1]) >= ENOUGH

    def _usual(self, rank: int) -> float:
        """Seconds of communication an update without slow links."""
        comm, updates = self._without[rank].tolist()
        return float(comm / updates)
