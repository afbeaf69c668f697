"""Claims: which contender is faster than which, all together wrong in at most one verdict of twenty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import final

from scaleml.telemetry.verdict.series import Series, paired
from scaleml.telemetry.verdict.statistics import MEANINGFUL, Interval, PairedRatio, holm


@final
@dataclass(frozen=True)
class Claim:
    """How many times as long one contender takes as another.

    Parameters
    ----------
    pair : PairedRatio
        The rounds' ratios.
    level : float
        What this claim may be wrong by, so that all of a verdict are right with 95%.
    """

    pair: PairedRatio
    level: float

    @property
    def interval(self) -> Interval:
        """The ratio with its interval."""
        return self.pair.interval(self.level)

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

    The best of several was chosen by the data that judges it, so every pair counts, not only those that are spoken of.
    """

    def __init__(self, series: Sequence[Series]) -> None:
        found = [(a, b, paired(series[a], series[b])) for a, b in combinations(range(len(series)), 2)]
        levels = holm([pair.p_value for _, _, pair in found])
        self._series = list(series)
        self._claims: dict[tuple[int, int], Claim] = {}
        for (a, b, pair), level in zip(found, levels, strict=True):
            self._claims[a, b] = Claim(pair, level)
            self._claims[b, a] = Claim(PairedRatio(-pair.logs, pair.ties), level)

    def __len__(self) -> int:
        return len(self._claims) // 2

    def slower(self, slow: Series, fast: Series) -> Claim:
        """Return how many times as long ``slow`` takes as ``fast``."""
        return self._claims[self._index(slow), self._index(fast)]

    def _index(self, series: Series) -> int:
        return next(i for i, one in enumerate(self._series) if one is series)
