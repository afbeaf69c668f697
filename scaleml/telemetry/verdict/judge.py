"""Judge: the headline of a verdict. Pure functions: nothing is measured here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from scaleml.telemetry.formatting import count, number, seconds
from scaleml.telemetry.summary import Summary
from scaleml.telemetry.verdict.case import Case
from scaleml.telemetry.verdict.claims import Claim
from scaleml.telemetry.verdict.reasons import faults, hardly_learnt, reasons, target_notes, troubles
from scaleml.telemetry.verdict.series import Series
from scaleml.telemetry.verdict.statistics import Interval
from scaleml.telemetry.verdict.verdict import Verdict

_USELESS: Final = 1000.0
"""From this factor on an interval's ends say nothing."""


def judge(series: Sequence[Series], target: float | None, computed: bool) -> Verdict:
    """The verdict on some contenders.

    Parameters
    ----------
    series : sequence of Series
        As `gather` returns them.
    target : float or None
        The loss to be reached; None if no run has a loss.
    computed : bool
        Whether the target was computed from the runs themselves.

    Examples
    --------
    >>> judge([], None, computed=False)
    'Nothing was compared.'
    """
    return judge_case(Case(series, target, computed))


def judge_case(case: Case) -> Verdict:
    """The verdict on a case."""
    rows = case.rows
    if not rows:
        return Verdict("Nothing was compared.")
    notes = faults(rows) + troubles(rows) + target_notes(case)
    if not case.alive:
        failed = all(row.failed for row in rows)
        return Verdict("No run finished." if failed else "Nothing to judge yet: no run has taken a step.", notes)
    headline, best = _headline(case)
    if any(row.running for one in case.series for row in one.rows):
        headline = f"So far (not all runs have finished): {headline}"
    at = None if best is None else case.index(best)
    return Verdict(headline, hardly_learnt(rows) + reasons(case, best) + notes, at)


def _headline(case: Case) -> tuple[str, Series | None]:
    """The answer in one sentence, and who is to be used."""
    rows = [case.row(series) for series in case.alive]
    if case.target is None or not any(row.reached for row in rows):
        return _unreached(rows, case.target), _closest(case)
    reached = [series for series in case.alive if case.row(series).reached and series.times]
    if not reached:
        return "No run that counts reached the target.", None
    if not case.wide and any(case.row(series).crowded for series in reached):
        return _crowded([case.row(series) for series in reached]), None
    base = case.base
    goal = f"a {case.row(reached[0]).kind} loss of {number(case.target)}"
    if base is None:
        return _without_base(case, goal)
    row = case.row(base)
    if all(one.is_serial for one in case.rows):
        return (
            f"Nothing that scales was run: {row.name} reaches {goal} in {seconds(row.time_to_target)}; add AllReduce().",
            base,
        )
    if not case.wide:
        only = f"only {row.name} reaches {goal}, in {seconds(row.time_to_target)}"
        if len(base.times) < 2:
            return f"One round was run, and one round claims nothing: {only}.", base
        return f"Do not scale: {only}.", base
    if not case.fit:
        return _only_doubtful(case, goal), None
    return _against(case, base, case.fit[0], goal)


def _against(case: Case, base: Series, best: Series, goal: str) -> tuple[str, Series]:
    """The headline where something that scales can be compared with the baseline."""
    row, its = case.row(best), case.row(base)
    gain, loss = case.claims.slower(base, best), case.claims.slower(best, base)
    if gain.rounds < 2:
        mine = f"{row.name} took {seconds(row.time_to_target)} to {goal}"
        other = seconds(its.time_to_target) if its.reached else f"did not reach it in {seconds(its.time)}"
        first = base if its.reached and its.time_to_target <= row.time_to_target else best
        return f"One round was run, and one round claims nothing: {mine}, {its.name} {other}.", first
    if gain.holds:
        if not its.reached:
            mine = seconds(row.time_to_target)
            return (
                f"Scale with {row.name}: it reaches {goal} in {mine}, and {its.name} does not reach it{_signs(gain)}.",
                best,
            )
        saved, later = its.time_to_target - row.time_to_target, _start(row) - _start(its)
        only = " where the data is in place" if saved <= later else ""
        return (
            f"Scale with {row.name}{only}: it is {_times(gain)} as fast as {its.name} to {goal}{_sure(gain, row, its)}.",
            best,
        )
    if loss.holds:
        other = f"the best that scales, {row.name}," if len(case.wide) > 1 else row.name
        return f"Do not scale: {its.name} is {_times(loss)} as fast as {other} to {goal}{_sure(loss, its, row)}.", base
    text = f"No difference shown between {row.name} and {its.name}: to {goal} the first takes {_share(gain)}"
    return f"{text}{_sure(loss, row, its)}. That is no reason to pay for more machines.", base


def _without_base(case: Case, goal: str) -> tuple[str, Series]:
    """The headline where nothing serial was run."""
    best, *others = case.wide
    row = case.row(best)
    add = "there is no serial run to compare with: add Serial()."
    if not others:
        return f"{row.name} is the only one to reach {goal}, in {seconds(row.time_to_target)}; {add}", best
    claims = [case.claims.slower(other, best) for other in others]
    second = case.row(others[0])
    if claims[0].rounds < 2:
        times = (
            f"{row.name} took {seconds(row.time_to_target)} to {goal}, {second.name} {seconds(second.time_to_target)}"
        )
        return f"One round was run, and one round claims nothing: {times}; {add}", best
    if all(claim.holds for claim in claims):
        sure = _sure(claims[0], row, second)
        return (
            f"{row.name} is the first to reach {goal}: {_times(claims[0])} as fast as {second.name}{sure}; {add}",
            best,
        )
    sure = _sure(case.claims.slower(best, others[0]), row, second)
    text = f"No difference shown between {row.name} and {second.name}: to {goal} the first takes {_share(claims[0])}"
    return f"{text}{sure}; {add}", best


def _only_doubtful(case: Case, goal: str) -> str:
    row = case.row(case.wide[0])
    why = case.doubt(case.wide[0])
    return f"Nothing is claimed: {row.name} is ahead with {seconds(row.time_to_target)} to {goal}, but {why}."


def _start(row: Summary) -> float:
    return row.placing if np.isfinite(row.placing) else 0.0


def _times(claim: Claim) -> str:
    ratio = claim.pair.ratio
    return "infinitely many times" if math.isinf(ratio) else f"{ratio:.3g} times"


def _share(gain: Claim) -> str:
    """How long the first takes in terms of the other, by the mean of the rounds' ratios."""
    ratio = gain.pair.ratio
    if ratio and math.isfinite(ratio):
        return f"{1 / ratio:.3g} times as long"
    return "no time beside a miss" if ratio else "infinitely longer"


def _sure(claim: Claim, first: Summary, second: Summary) -> str:
    """How sure a ratio is, and what it was computed from."""
    pair = f"{seconds(first.time_to_target)} against {seconds(second.time_to_target) if second.reached else 'a miss'}"
    return f" ({interval_text(claim.interval)}, {claim.rounds} rounds; medians {pair})"


def _signs(claim: Claim) -> str:
    return f" (in {int((claim.pair.logs > 0).sum())} of {claim.rounds} rounds it was first)"


def interval_text(found: Interval) -> str:
    """Return an interval as sentences say it.

    >>> interval_text(Interval(2.0, 1.8, 2.25)), interval_text(Interval(2.0, 0.0, math.inf))
    ('95% interval 1.8 to 2.25', 'no interval yet')
    """
    if found.high > _USELESS * found.low:
        return "no interval yet"
    if math.isinf(found.high):
        return f"with 95% at least {found.low:.3g}"
    return f"95% interval {found.low:.3g} to {found.high:.3g}"


def _closest(case: Case) -> Series | None:
    """Who came closest to a target that nobody reached."""
    known = [series for series in case.alive if np.isfinite(case.row(series).held)]
    return None if case.target is None else min(known, key=lambda series: case.row(series).held, default=None)


def _crowded(reached: list[Summary]) -> str:
    """The headline where every scaled run had to share cores: only the samples they needed can be compared."""
    text = "This machine cannot tell whether scaling pays: it has fewer cores than workers."
    known = [row for row in reached if np.isfinite(row.samples_to_target)]
    if not known:
        return text
    least = min(known, key=lambda row: row.samples_to_target)
    return f"{text} {least.name} needs the fewest samples to the target, {count(least.samples_to_target)}."


def _unreached(alive: list[Summary], target: float | None) -> str:
    """The headline where nobody reached the target, or there is none."""
    fair = [row for row in alive if not row.crowded] or alive
    known = [row for row in alive if np.isfinite(row.best)]
    if not any(row.state == "finished" for row in alive) and target is None:
        return "No run went to its end, so there is no target to compare times to: let one finish, or set a target."
    if target is None or not known:
        fast = max(fair, key=lambda row: np.nan_to_num(row.samples_per_s))
        text = "No finished run learnt anything, so there is no target to compare times to."
        return (
            f"{text} {fast.name} is the fastest, with {count(fast.samples_per_s)} samples/s." if len(fair) > 1 else text
        )
    near = min(known, key=lambda row: row.held if np.isfinite(row.held) else math.inf)
    lowest = near.held if np.isfinite(near.held) else near.best
    if near.best <= target:
        how = f"{near.name} came below it, to {number(near.best)} at best, but on average over three evaluations only to {number(lowest)}"
    else:
        how = f"the closest is {near.name} with {number(lowest)}"
    return (
        f"No run reached a {near.kind} loss of {number(target)} and stayed there: {how} after {seconds(near.time)}. "
        "Train longer, change the learning rate, or set an easier target."
    )
