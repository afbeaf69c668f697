"""Which links were slowed on purpose, and what that cost: communication beyond what it takes otherwise."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from scaleml.telemetry import COLUMNS, Ledger
from scaleml.telemetry.formatting import listing, seconds, size
from scaleml.telemetry.history import Change

ENOUGH = 5
"""Updates of a rank that tell what communication takes it otherwise."""
_FAULT = re.compile(r"(Latency|Bandwidth)\(rank=(\d+), \w+=([^,]+), step=\d+, until=(\w+), to=(\w+)\)")
_AT = {name: i for i, name in enumerate(COLUMNS)}
_COST = [_AT["comm"], _AT["updates"]]


@dataclass(frozen=True)
class SlowLink:
    """A ``Latency`` or a ``Bandwidth`` as a history tells of it."""

    kind: str
    rank: int
    amount: float
    until: int | None
    to: int | None

    @classmethod
    def told(cls, text: str) -> SlowLink | None:
        """Read it off the words of a change; None for any other change.

        >>> SlowLink.told("Latency(rank=1, seconds=0.02, step=0, until=None, to=None)")
        SlowLink(kind='Latency', rank=1, amount=0.02, until=None, to=None)
        >>> SlowLink.told("learning_rate=0.1")
        """
        found = _FAULT.fullmatch(text)
        if found is None:
            return None
        until, to = (None if part == "None" else int(part) for part in found.groups()[3:])
        return cls(found[1], int(found[2]), float(found[3]), until, to)

    @property
    def lifts(self) -> bool:
        """Whether it ends an earlier one instead of slowing anything."""
        return self.amount == (0.0 if self.kind == "Latency" else math.inf)

    @property
    def words(self) -> str:
        """What it does."""
        to = "" if self.to is None else f" to rank {self.to}"
        if self.kind == "Latency":
            return f"what rank {self.rank} sends{to} arrives {seconds(self.amount)} later"
        return f"rank {self.rank} sends at most {size(self.amount)} a second{to}"


@final
class Links:
    """The slow links of one run, and each rank's communication with them and without."""

    def __init__(self) -> None:
        self.slow: dict[tuple[str, int, int | None], SlowLink] = {}
        self._heard = 0
        self._spans: list[list[float]] = []
        self._with: dict[int, NDArray[np.float64]] = {}
        self._without: dict[int, NDArray[np.float64]] = {}

    def hear(self, changes: Sequence[Change]) -> None:
        """Take in what changed in mid-run; to be told before the rows that follow."""
        for change in changes[self._heard :]:
            self._heard += 1
            link = SlowLink.told(change.text)
            if link is not None:
                self._turn(link, change.time)

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
        slow = listing([link.words for link in self.slow.values()]) if self.slow else "links were slow for a while"
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
        self.slow[link.kind, link.rank, link.to] = link

    def _end(self, link: SlowLink, time: float) -> None:
        """End what slows this link, or, where none is named, all of its rank."""
        gone = [key for key in self.slow if key[:2] == (link.kind, link.rank) and link.to in (None, key[2])]
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
