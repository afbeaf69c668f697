"""Case: the contenders of a comparison sorted for a verdict. Who may claim, who is the baseline, who is ahead."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np

from scaleml.telemetry.formatting import number
from scaleml.telemetry.summary import Summary
from scaleml.telemetry.verdict.claims import Claim, Claims
from scaleml.telemetry.verdict.series import Series


@final
@dataclass(frozen=True)
class Case:
    """What a verdict is given on.

    Parameters
    ----------
    series : sequence of Series
        All contenders.
    target : float or None
        The loss to be reached; None if no run has a loss.
    computed : bool
        Whether the target was computed from the runs themselves.
    measured : float, optional
        What a round took, with all that is not training.
    """

    series: Sequence[Series]
    target: float | None
    computed: bool
    measured: float | None = None

    @cached_property
    def rows(self) -> list[Summary]:
        """One row a contender, of medians."""
        return [series.summary for series in self.series]

    @cached_property
    def alive(self) -> list[Series]:
        """Those that took a step and did not fail."""
        return [series for series in self.series if not self.row(series).failed and np.isfinite(self.row(series).time)]

    @cached_property
    def bases(self) -> list[Series]:
        """The serial runs that count."""
        return [series for series in self.alive if self.row(series).is_serial and series.times]

    @cached_property
    def base(self) -> Series | None:
        """The baseline: the first of the serial ones at the target, else the one with most samples a second."""
        reached = [series for series in self.bases if self.row(series).reached]
        if reached:
            return min(reached, key=lambda series: self.row(series).time_to_target)
        return max(self.bases, key=lambda series: np.nan_to_num(self.row(series).samples_per_s), default=None)

    @cached_property
    def wide(self) -> list[Series]:
        """Those that scale, on cores of their own, and reach the target: the fastest first."""
        found = [
            series
            for series in self.alive
            if series.times and not self.row(series).is_serial and not self.row(series).crowded
        ]
        return sorted(
            (series for series in found if self.row(series).reached), key=lambda series: self.row(series).time_to_target
        )

    @cached_property
    def fit(self) -> list[Series]:
        """Those of them that may claim: with settings that the baseline had too, and no more than workers can give."""
        return [series for series in self.wide if self.doubt(series) is None]

    @cached_property
    def claims(self) -> Claims:
        """Who is faster than whom."""
        return Claims(self.bases, self.wide)

    @cached_property
    def rounds(self) -> int:
        """The most rounds that two contenders have in common."""
        judged = [*self.bases, *self.wide]
        return max((self.claims.slower(a, b).rounds for a in judged for b in judged if a is not b), default=0)

    def row(self, series: Series) -> Summary:
        """Return the row of one contender."""
        return self.rows[self.index(series)]

    def index(self, series: Series) -> int:
        """Return which contender it is."""
        return next(i for i, one in enumerate(self.series) if one is series)

    def twin(self, series: Series) -> Series | None:
        """Return the serial contender whose updates are of the same rows at the same rate."""
        own = self.row(series)
        same = [
            base
            for base in self.bases
            if (self.row(base).optimizer, self.row(base).rows_an_update) == (own.optimizer, own.rows_an_update)
        ]
        return min(same, key=lambda base: np.nan_to_num(self.row(base).time_to_target, nan=math.inf), default=None)

    def gain(self, series: Series) -> Claim | None:
        """Return how many times as long the baseline takes; None for one of which nothing can be claimed."""
        if self.base is None or not any(one is series for one in self.wide):
            return None
        return self.claims.slower(self.base, series)

    def doubt(self, series: Series) -> str | None:
        """Return why one that is ahead claims nothing, or None."""
        base, row = self.base, self.row(series)
        if base is None:
            return None
        if self.twin(series) is None:
            return (
                f"it used {row.optimizer} on {row.rows_an_update} rows an update, "
                f"and no serial run did ({self.row(base).name}: {self.row(base).optimizer} on {self.row(base).rows_an_update})"
            )
        gain = self.claims.slower(base, series)
        if gain.rounds > 1 and not gain.pair.is_exact and gain.interval.low > row.workers:
            return (
                f"it is {number(gain.pair.ratio)} times as fast on {row.workers} workers, more than these can give: "
                "something other than parallelism is at work"
            )
        return None

    @property
    def round_seconds(self) -> float:
        """What one more round of all would take."""
        if self.measured is not None:
            return self.measured
        spent = [
            np.mean([row.cold for row in series.rows if np.isfinite(row.time) and not row.running] or [0.0])
            for series in self.alive
        ]
        return float(sum(spent))
