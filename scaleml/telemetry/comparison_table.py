"""Comparison's table: its rows with speed-ups, as a pandas frame and as people read it."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from scaleml.telemetry.formatting import count, factor, number, percent, seconds, size
from scaleml.telemetry.summary import Summary
from scaleml.telemetry.verdict.case import Case
from scaleml.telemetry.verdict.series import Series

if TYPE_CHECKING:
    import pandas as pd


def with_speedups(case: Case) -> list[Summary]:
    """One row a contender, with speed-up and efficiency against the baseline."""
    base = case.base
    if base is None:
        return case.rows
    return [
        row if row.failed else _against(case, series, base) for series, row in zip(case.series, case.rows, strict=True)
    ]


def _against(case: Case, series: Series, base: Series) -> Summary:
    row, its = case.row(series), case.row(base)
    if not (row.reached and its.reached):
        ratio = row.samples_per_s / its.samples_per_s
        return replace(row, speedup=ratio, speedup_by="samples/s", efficiency=ratio / row.workers)
    judged = series is base or any(series is one for one in (*case.bases, *case.wide))
    if series is base or not judged or not case.claims.slower(base, series).rounds:
        ratio, low, high = its.time_to_target / max(row.time_to_target, 1e-9), math.nan, math.nan
    else:
        ratio, low, high = case.claims.slower(base, series).interval
    return replace(row, speedup=ratio, speedup_by="time to target", efficiency=ratio / row.workers, low=low, high=high)


def frame_of(rows: Sequence[Summary], target: float | None) -> pd.DataFrame:
    """The numbers as a pandas frame."""
    import pandas as pd

    frame = pd.DataFrame(
        {
            "strategy": [row.strategy for row in rows],
            "workers": [row.workers for row in rows],
            "threads": [row.threads for row in rows],
            "rounds": [row.rounds for row in rows],
            "rows_an_update": [row.rows_an_update for row in rows],
            "learning_rate": [row.learning_rate for row in rows],
            "loss": [row.loss for row in rows],
            "score": [row.score for row in rows],
            "time_s": [row.time for row in rows],
            "time_to_target_s": [row.time_to_target for row in rows],
            "samples_per_s": [row.samples_per_s for row in rows],
            "speedup": [row.speedup for row in rows],
            "speedup_low": [row.low for row in rows],
            "speedup_high": [row.high for row in rows],
            "efficiency": [row.efficiency for row in rows],
            "compute": [row.compute for row in rows],
            "wait": [row.wait for row in rows],
            "comm": [row.comm for row in rows],
            "bytes_per_step": [row.bytes_per_step for row in rows],
            "staleness": [row.staleness for row in rows],
            "cold_s": [row.cold for row in rows],
            "cold_to_target_s": [row.time_to_target + np.nan_to_num(row.placing) for row in rows],
            "samples_to_target": [row.samples_to_target for row in rows],
            "speedup_by": [row.speedup_by for row in rows],
            "state": [row.state for row in rows],
        }
    )
    frame.attrs["target"] = target
    frame.attrs["score"] = next((row.score_name for row in rows if np.isfinite(row.score)), "score")
    return frame


def cells_of(row: Summary) -> tuple[str, ...]:
    """One row as people read it, in the order of the table's head."""
    return (
        row.strategy,
        str(row.workers),
        str(row.threads),
        count(row.rows_an_update) if row.rows_an_update else "-",
        number(row.learning_rate),
        str(row.rounds),
        number(row.loss),
        number(row.score),
        row.state if row.failed else seconds(row.time),
        seconds(row.time_to_target),
        count(row.samples_per_s),
        _speedup(row),
        _interval(row),
        percent(row.efficiency),
        percent(row.compute),
        percent(row.wait),
        percent(row.comm),
        size(row.bytes_per_step),
        f"{row.staleness:.1f}",
        seconds(row.cold),
    )


def footnote_of(rows: Sequence[Summary], target: float | None, is_given: bool, shown: Collection[str]) -> str:
    """What is to be known of the columns ``shown``."""
    kinds = {row.kind for row in rows if np.isfinite(row.loss)}
    parts = []
    if any(row.rounds > 1 for row in rows):
        rounds = {row.rounds for row in rows if row.rounds}
        parts.append(f"Medians of {rounds.pop()} rounds." if len(rounds) == 1 else "Medians over the rounds.")
    named = {row.score_name for row in rows if np.isfinite(row.score)}
    if "score" in shown and named:
        parts.append(f"Score: {' and '.join(sorted(named))}.")
    if "loss" in shown:
        parts.append(f"{kinds.pop().capitalize()} loss at the end." if len(kinds) == 1 else "Loss at the end.")
    if target is not None:
        reached = "." if is_given else ", which every finished run that learnt reached and held."
        parts.append(f"Target: a loss of {number(target)}{reached}")
    if "95%" in shown and any(_interval(row) != "-" for row in rows):
        parts.append("95%: where the speed-up lies, for all that scale together, and for the serial ones.")
    if any(row.speedup_by == "samples/s" for row in rows):
        parts.append("* samples a second against the baseline's: no time to the target to compare.")
    if any(row.crowded and row.speedup_by for row in rows):
        parts.append("In brackets: more workers than cores, so these mean nothing.")
    if "cold" in shown:
        parts.append("Cold: with placing the data and starting.")
    return " ".join(parts)


def _speedup(row: Summary) -> str:
    text = factor(row.speedup) + "*" * (row.speedup_by == "samples/s")
    return f"({text})" if row.crowded and row.speedup_by else text


def _interval(row: Summary) -> str:
    if not np.isfinite(row.low) or row.high > 1000 * row.low:
        return "-"
    high = "more" if math.isinf(row.high) else f"{row.high:.2f}"
    return f"{row.low:.2f} to {high}"
