"""Series: one contender's runs over the rounds of a comparison, their medians, and which of them count."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import final

import numpy as np

from scaleml.telemetry.formatting import number
from scaleml.telemetry.run_like import RunLike
from scaleml.telemetry.summary import NAN, Summary, common_target, measure, timed
from scaleml.telemetry.verdict.statistics import PairedRatio

Round = tuple[str, int]
"""A comparison and the number of one of its rounds: runs of the same round had the same seed and alternated."""
ALONE = "alone"
"""What stands for the comparison of runs that were put side by side by hand."""


@final
@dataclass(frozen=True)
class Series:
    """All runs of one contender.

    Parameters
    ----------
    rows : tuple of Summary
        One a round, in their order.
    rounds : tuple of (str, int)
        Which ones.
    target : float or None
        The loss to be reached.
    positions : tuple of int
        Of the runs among those of the comparison.
    start : float
        Seconds that its first start took, data and all; NaN for as long as the others.

    Attributes
    ----------
    summary : Summary
        The median of each number over the rounds that count.
    """

    rows: tuple[Summary, ...]
    rounds: tuple[Round, ...]
    target: float | None
    positions: tuple[int, ...] = (0,)
    start: float = NAN

    @property
    def name(self) -> str:
        """As sentences call it."""
        return self.rows[0].name

    @property
    def times(self) -> dict[Round, float]:
        """Seconds to the target in each round that counts; inf for a miss."""
        return {
            at: row.time_to_target if row.reached else math.inf
            for at, row in zip(self.rounds, self.rows, strict=True)
            if self._why_not(row) is None
        }

    @property
    def counted(self) -> list[Summary]:
        """The rounds that count; all that were measured where none does."""
        valid = [row for row in self.rows if self._why_not(row) is None]
        return valid or [row for row in self.rows if np.isfinite(row.time)] or list(self.rows)

    @property
    def summary(self) -> Summary:
        """One row that stands for all: medians; of a miss half of the time or more, a miss."""
        row = median_of(self.counted, len(self.times))
        starts = [self.start, *(one.placing for one in self.rows)]
        return replace(row, placing=max((start for start in starts if not math.isnan(start)), default=NAN))

    @property
    def remarks(self) -> list[str]:
        """Why some of its runs neither claim nor serve as a baseline."""
        found = [(at, self._why_not(row)) for at, row in zip(self.rounds, self.rows, strict=True)]
        reasons: dict[str, list[int]] = {}
        for (_, number_), why in found:
            if why:
                reasons.setdefault(why, []).append(number_ + 1)
        several = len(self.rows) > 1
        return [
            f"{self.name}{f' in round {_numbers(at)}' * several}: {why}; it counts for nothing here."
            for why, at in reasons.items()
        ]

    @property
    def middle(self) -> int:
        """The position of the run that stands for all: the one of median time."""
        times = self.times
        keys = [
            (times.get(at, math.nan), row.time, position)
            for at, row, position in zip(self.rounds, self.rows, self.positions, strict=True)
        ]
        ranked = sorted((math.isnan(time), time, spent, position) for time, spent, position in keys)
        known = [key for key in ranked if not key[0]] or ranked
        return known[(len(known) - 1) // 2][3]

    def _why_not(self, row: Summary) -> str | None:
        """Why a run does not count: "" where that is said elsewhere."""
        if row.failed or not np.isfinite(row.time) or (row.running and not row.reached):
            return ""
        if row.changed:
            return f"changed: {', '.join(row.changed[:3])}"
        if row.state == "stopped" and not row.reached:
            return ""
        if self.target is not None and row.reached and row.ends_far_above(self.target):
            return f"it reached the target, but its loss ended far above it, at {number(row.end)}"
        return None


def gather(
    runs: Sequence[RunLike], target: float | None = None, warm_ups: Sequence[RunLike] = ()
) -> tuple[list[Series], float | None]:
    """Summarise runs, finished or not, as contenders over rounds, and settle the target.

    Parameters
    ----------
    runs : sequence of Run
        Those without a place in a comparison stand alone, each in one round.
    target : float, optional
        The loss to be reached. By default `common_target`.
    warm_ups : sequence of Run
        Which tell how long each contender's first start took.

    Returns
    -------
    series : list of Series
        In the order of their first runs.
    target : float or None
        None if none was given and no run has a loss.
    """
    measured = [measure(run) for run in runs]
    goal = common_target([row for row, _ in measured if not row.changed]) if target is None else target
    rows = [row if goal is None else timed(row, curve, goal) for row, curve in measured]
    members: dict[tuple[str, int], list[int]] = {}
    for position, run in enumerate(runs):
        place = run.place
        key = (ALONE, position) if place is None else (place.comparison, place.entry)
        members.setdefault(key, []).append(position)
    starts = {
        (run.place.comparison, run.place.entry): float(run.placing_seconds)
        for run in warm_ups
        if run.place is not None and run.placing_seconds is not None
    }
    series = [_series(runs, rows, positions, goal) for positions in members.values()]
    return [replace(one, start=starts.get(key, NAN)) for key, one in zip(members, series, strict=True)], goal


def _series(runs: Sequence[RunLike], rows: Sequence[Summary], positions: list[int], goal: float | None) -> Series:
    rounds = [
        (ALONE, 0) if place is None else (place.comparison, place.round)
        for place in (runs[position].place for position in positions)
    ]
    return Series(tuple(rows[position] for position in positions), tuple(rounds), goal, tuple(positions))


def median_of(rows: Sequence[Summary], rounds: int) -> Summary:
    """Return the medians of some runs of one contender; what is no number is the last one's."""
    last = rows[-1]
    changes: dict[str, object] = {"rounds": rounds}
    for field in fields(Summary):
        values = [getattr(row, field.name) for row in rows]
        if isinstance(values[0], float):
            changes[field.name] = _median(values, missing=field.name.endswith("_to_target"))
    changes["early"] = all(row.early for row in rows)
    changes["error"] = next((row.error for row in reversed(rows) if row.error), None)
    changes["faults"] = tuple(dict.fromkeys(text for row in rows for text in row.faults))
    changes["changed"] = tuple(dict.fromkeys(text for row in rows for text in row.changed))
    return replace(last, **changes)  # type: ignore[arg-type]  # the fields' own values


def _median(values: Iterable[float], missing: bool) -> float:
    """The median; ``missing`` values are worse than all others, unknown ones are left out."""
    known = [value for value in values if missing or not math.isnan(value)]
    if not known:
        return NAN
    ordered = sorted(math.inf if math.isnan(value) else value for value in known)
    middle = 0.5 * (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2])
    return middle if not missing or math.isfinite(middle) else NAN


def paired(slow: Series, fast: Series) -> PairedRatio:
    """How many times as long ``slow`` took as ``fast``, over the rounds in which both count."""
    a, b = slow.times, fast.times
    common = [at for at in a if at in b and at[0] != ALONE]
    return PairedRatio.of([a[at] for at in common], [b[at] for at in common])


def _numbers(numbers: Sequence[int]) -> str:
    return ", ".join(str(value) for value in numbers)
