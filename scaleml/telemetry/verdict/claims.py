"""Claims: which contender is faster than which, wrong in at most one headline of fifty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import final

from scaleml.telemetry.verdict.series import Series, paired
from scaleml.telemetry.verdict.statistics import ALPHA, CLAIM, MEANINGFUL, Interval, PairedRatio, holm


@final
@dataclass(frozen=True)
class Claim:
    """How many times as long one contender takes as another.

    Parameters
    ----------
    pair : PairedRatio
        The rounds' ratios.
    level : float
        What this claim may be wrong by, so that all of its family are right with 98%.
    alpha : float
        What its interval may be wrong by, so that all of its family are right with 95%.
    """

    pair: PairedRatio
    level: float
    alpha: float

    @property
    def interval(self) -> Interval:
        """The ratio with its interval."""
        return self.pair.interval(self.alpha)

    @property
    def rounds(self) -> int:
        """Rounds that say something."""
        return self.pair.rounds

    @property
    def holds(self) -> bool:
        """Whether the second is faster: by more than a difference that is worth a word, and surely."""
        return self.pair.ratio > MEANINGFUL and self.interval.low > 1 and self.pair.p_value <= self.level

    @property
    def more_rounds(self) -> int | None:
        """Rounds that would probably settle it, in either direction; None where none would."""
        return self.pair.more_rounds(self.level)


@final
class Claims:
    """All pairs of some contenders, each judged at the level that Holm's correction leaves it.

    The best of several was chosen by the data that judges it, so every pair counts, not only those that are spoken of. There are three
    families, each corrected for itself: scaled against serial, which a headline is about; scaled ones among each other; serial ones.

    Parameters
    ----------
    serial, scaled : sequences of Series
    """

    def __init__(self, serial: Sequence[Series], scaled: Sequence[Series]) -> None:
        self._series = [*serial, *scaled]
        self._claims: dict[tuple[int, int], Claim] = {}
        first = len(serial)
        families: dict[int, list[tuple[int, int]]] = {0: [], 1: [], 2: []}
        for a, b in combinations(range(len(self._series)), 2):
            families[(a >= first) + (b >= first)].append((a, b))
        for pairs in families.values():
            self._judge(pairs)

    def _judge(self, family: Sequence[tuple[int, int]]) -> None:
        found = [paired(self._series[a], self._series[b]) for a, b in family]
        p_values = [pair.p_value for pair in found]
        levels = zip(holm(p_values, CLAIM), holm(p_values, ALPHA), strict=True)
        for (a, b), pair, (level, alpha) in zip(family, found, levels, strict=True):
            self._claims[a, b] = Claim(pair, level, alpha)
            self._claims[b, a] = Claim(PairedRatio(-pair.logs, pair.ties), level, alpha)

    def slower(self, slow: Series, fast: Series) -> Claim:
        """Return how many times as long ``slow`` takes as ``fast``."""
        return self._claims[self._index(slow), self._index(fast)]

    def _index(self, series: Series) -> int:
        return next(i for i, one in enumerate(self._series) if one is series)
