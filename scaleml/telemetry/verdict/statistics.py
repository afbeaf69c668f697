"""Statistics of paired rounds: the ratio of two times with its interval, exact tests where a time is a miss, Holm's correction.

Pure functions of numbers. Every round gives one time for each contender under the same seed, so what two of them differ by is
judged on the rounds' log ratios: Student's t while all times are finite, exact signs where a miss counts as infinite.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

ALPHA: Final = 0.05
"""What intervals may be wrong by, all of a verdict's together."""
CLAIM: Final = 0.02
"""What claims may be wrong by, all of a verdict's together: at 5% every other hundred of comparisons of equals would have more than
five that claim a difference."""
MEANINGFUL: Final = 1.05
"""A ratio below this is no difference worth a word, however sure it is."""
_SHORTEST: Final = 1e-9
"""Seconds: no time is shorter, for a ratio's sake."""
_FORESEEN: Final = 1000
"""No forecast of rounds goes beyond this."""


class Interval(NamedTuple):
    """A ratio of times and where it lies with the confidence that was asked for; unbounded where too few rounds were run."""

    ratio: float
    low: float
    high: float

    @property
    def excludes_one(self) -> bool:
        """Whether the two differ at all."""
        return self.low > 1 or self.high < 1

    def inverse(self) -> Interval:
        """Return the same seen from the other side."""
        return Interval(_over(self.ratio), _over(self.high), _over(self.low))


@final
@dataclass(frozen=True)
class PairedRatio:
    """How many times as long one takes as the other, over rounds in which both ran.

    Parameters
    ----------
    logs : (n,) array
        The log ratio of each round: infinite where only one of them arrived.
    ties : int
        Rounds that say nothing, for neither arrived.
    """

    logs: NDArray[np.float64]
    ties: int = 0

    @classmethod
    def of(cls, slow: ArrayLike, fast: ArrayLike) -> PairedRatio:
        """Return that of two lists of times.

        Parameters
        ----------
        slow, fast : array-like of shape (rounds,)
            Seconds, > 0; inf for a miss, NaN where there was no such run.

        Examples
        --------
        >>> PairedRatio.of([2.0, 4.1, 3.9], [1.0, 2.0, 2.0]).interval().ratio.__round__(2)
        2.0
        """
        a, b = np.asarray(slow, dtype=float), np.asarray(fast, dtype=float)
        both = ~(np.isnan(a) | np.isnan(b))
        arrived = both & (np.isfinite(a) | np.isfinite(b))
        logs = np.log(np.maximum(a[arrived], _SHORTEST)) - np.log(np.maximum(b[arrived], _SHORTEST))
        return cls(logs, int(both.sum() - arrived.sum()))

    @property
    def rounds(self) -> int:
        """Rounds that say something."""
        return len(self.logs)

    @property
    def is_exact(self) -> bool:
        """Whether only signs count, for there were misses."""
        return not bool(np.isfinite(self.logs).all())

    @property
    def ratio(self) -> float:
        """The geometric mean of the rounds' ratios; their median where there were misses. NaN without rounds."""
        if not self.rounds:
            return math.nan
        middle = float(np.median(self.logs)) if self.is_exact else float(self.logs.mean())
        return math.exp(middle) if math.isfinite(middle) else (math.inf if middle > 0 else 0.0)

    @property
    def p_value(self) -> float:
        """The two-sided probability of so great a difference between equals; 1 where there are too few rounds to say."""
        if self.is_exact:
            return sign_test(int((self.logs > 0).sum()), int((self.logs < 0).sum()))
        if self.rounds < 2:
            return 1.0
        error = self._error
        mean = abs(float(self.logs.mean()))
        if error == 0:
            return 0.0 if mean else 1.0
        from scipy.special import stdtr

        return 2.0 * float(stdtr(self.rounds - 1, -mean / error))

    @property
    def _error(self) -> float:
        """The standard error of the mean log ratio."""
        return float(self.logs.std(ddof=1)) / math.sqrt(self.rounds)

    def interval(self, alpha: float = ALPHA) -> Interval:
        """Return the ratio and its two-sided interval, wrong with probability ``alpha``.

        Student's t on the log ratios; with misses the order statistics that the sign test leaves.
        """
        if self.is_exact:
            return Interval(self.ratio, *_order_interval(self.logs, alpha))
        if self.rounds < 2:
            return Interval(self.ratio, 0.0, math.inf)
        half, mean = student(alpha, self.rounds) * self._error, float(self.logs.mean())
        return Interval(self.ratio, math.exp(mean - half), _exp(mean + half))

    def more_rounds(self, alpha: float = ALPHA) -> int | None:
        """Return how many more rounds of this kind would probably settle it; None where none would.

        What has been seen so far stands for what is to come: with four in five odds the interval then excludes 1.
        """
        if self.is_exact:
            return _more_signs(self.logs, alpha)
        if self.rounds < 2:
            return None
        mean, spread = abs(float(self.logs.mean())), float(self.logs.std(ddof=1))
        if mean < math.log(MEANINGFUL):
            return None
        for n in range(self.rounds, _FORESEEN):
            if (student(alpha, n) + 0.84) * spread / math.sqrt(n) <= mean:
                return max(1, n - self.rounds)
        return None


def student(alpha: float, rounds: int) -> float:
    """Return the two-sided quantile of Student's t for the mean of so many rounds."""
    from scipy.special import stdtrit

    return float(stdtrit(rounds - 1, 1 - alpha / 2))


def sign_test(more: int, fewer: int) -> float:
    """Return the exact two-sided p of so many signs of either kind; five of a kind cannot get below 0.0625.

    >>> sign_test(5, 0), sign_test(6, 0)
    (0.0625, 0.03125)
    """
    n, least = more + fewer, min(more, fewer)
    tail = sum(math.comb(n, k) for k in range(least + 1)) / 2**n
    return min(1.0, 2 * tail)


def holm(p_values: Sequence[float], alpha: float) -> list[float]:
    """Return for each of several tests the level it is judged at, so that all together err with at most ``alpha``.

    A test is claimed exactly where its p is at most its level: the smallest p is held to alpha / m, the next to alpha / (m - 1) and
    so on; from the first that fails, all the others are held to that one's level.

    References
    ----------
    Holm, A simple sequentially rejective multiple test procedure, 1979.

    Examples
    --------
    >>> [round(level, 4) for level in holm([0.01, 0.04, 0.6], 0.05)]
    [0.0167, 0.025, 0.025]
    """
    levels = [0.0] * len(p_values)
    level, failed = 0.0, False
    for place, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        if not failed:
            level = alpha / (len(p_values) - place)
            failed = p_values[i] > level
        levels[i] = level
    return levels


def _order_interval(logs: NDArray[np.float64], alpha: float) -> tuple[float, float]:
    """The range of the median that the sign test does not reject."""
    n, ordered = len(logs), np.sort(logs)
    k, tail = 0, 0.0
    while k < n // 2 and 2 * (tail + math.comb(n, k) / 2**n) <= alpha:
        tail += math.comb(n, k) / 2**n
        k += 1
    return (0.0, math.inf) if k == 0 else (_exp(float(ordered[k - 1])), _exp(float(ordered[n - k])))


def _more_signs(logs: NDArray[np.float64], alpha: float) -> int | None:
    more, fewer = int((logs > 0).sum()), int((logs < 0).sum())
    share = max(more, fewer) / max(1, len(logs))
    for n in range(len(logs) + 1, 200):
        if sign_test(round(share * n), n - round(share * n)) <= alpha:
            return n - len(logs)
    return None


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf


def _over(value: float) -> float:
    return math.inf if value == 0 else 1 / value
