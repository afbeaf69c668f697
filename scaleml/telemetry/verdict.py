"""Verdict: from summarised runs to one sentence with its reasons. Pure functions: nothing is measured here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np

from scaleml.telemetry.formatting import count, factor, listing, number, percent, seconds, size
from scaleml.telemetry.summary import Summary, baseline

NOISE = 0.05  # two times that differ by less are the same time
NAN = float("nan")


@final
class Verdict(str):
    """What to use and why, as one string.

    Attributes
    ----------
    headline : str
        The answer, one sentence.
    reasons : tuple of str
        What it rests on, one sentence each.
    best : int or None
        The index of the recommended run.
    """

    headline: str
    reasons: tuple[str, ...]
    best: int | None

    def __new__(cls, headline: str, reasons: Sequence[str] = (), best: int | None = None) -> Verdict:
        self = super().__new__(cls, " ".join([headline, *reasons]))
        self.headline, self.reasons, self.best = headline, tuple(reasons), best
        return self

    def __getnewargs__(self) -> tuple[str, tuple[str, ...], int | None]:  # type: ignore[override]
        return self.headline, self.reasons, self.best


def judge(rows: Sequence[Summary], target: float | None, computed: bool) -> Verdict:
    """The verdict on some runs.

    Parameters
    ----------
    rows : sequence of Summary
        As `summarise` returns them.
    target : float or None
        The loss to be reached; None if no run has a loss.
    computed : bool
        Whether the target was computed from the runs themselves.

    Examples
    --------
    >>> serial = Summary(strategy="Serial()", is_serial=True, time=9.0, time_to_target=8.0)
    >>> wide = Summary(strategy="AllReduce()", workers=2, cores=2, time=12.0, time_to_target=10.0)
    >>> judge([serial, wide], 0.2, computed=False).headline
    'Do not scale: Serial() is faster. It reaches a held-out loss of 0.2 in 8 s, AllReduce() on 2 workers in 10 s.'
    """
    if not rows:
        return Verdict("Nothing was compared.")
    alive = [row for row in rows if not row.failed and np.isfinite(row.time)]
    notes = _faults(rows) + _troubles(rows) + _target_notes(alive, target, computed)
    if not alive:
        failed = all(row.failed for row in rows)
        return Verdict("No run finished." if failed else "Nothing to judge yet: no run has taken a step.", notes)
    fair = [row for row in alive if not row.crowded]
    base = baseline(rows)
    best: Summary | None = None
    if target is None or not any(row.reached for row in alive):
        headline = _unreached(alive, fair or alive, target)
    elif not any(row.reached and not row.is_serial for row in fair) and any(
        row.crowded and row.reached for row in alive
    ):
        headline = _crowded([row for row in alive if row.reached])
    elif base is not None and all(row.is_serial for row in rows):
        goal = f"a {base.kind} loss of {number(target)}"
        headline = f"Nothing that scales was run: {base.name} reaches {goal} in {seconds(base.time_to_target)}; add AllReduce()."
    else:
        headline, best = _fastest([row for row in fair if row.reached], base, target)
    if any(row.running for row in rows):
        headline = f"So far (not all runs have finished): {headline}"
    reasons = _why(alive, fair, best, base) + _crowding(alive) + notes
    return Verdict(headline, reasons, next((i for i, row in enumerate(rows) if row is best), None))


def _fastest(reached: list[Summary], base: Summary | None, target: float) -> tuple[str, Summary]:
    """The headline where somebody reached the target on cores of its own."""
    wide = sorted((row for row in reached if not row.is_serial), key=lambda row: row.time_to_target)
    goal = f"a {reached[0].kind} loss of {number(target)}"
    if base is None:
        first = "the first" if len(wide) > 1 else "the only one"
        text = f"{wide[0].name} is {first} to reach {goal}, in {seconds(wide[0].time_to_target)}"
        return f"{text}; there is no serial run to compare with: add Serial().", wide[0]
    its = seconds(base.time_to_target)
    if not wide:
        return f"Do not scale: only {base.name} reaches {goal}, in {its}.", base
    best = wide[0]
    mine = seconds(best.time_to_target)
    if not base.reached:
        spent = seconds(base.time)
        return (
            f"Scale with {best.name}: it reaches {goal} in {mine}, and {base.name} does not reach it in {spent}.",
            best,
        )
    if best.time_to_target < (1 - NOISE) * base.time_to_target:
        ratio = base.time_to_target / best.time_to_target if best.time_to_target else float("inf")
        return (
            f"Scale with {best.name}: it is {ratio:.3g} times as fast as {base.name} to {goal} ({mine} against {its}).",
            best,
        )
    if base.time_to_target < (1 - NOISE) * best.time_to_target:
        other = f"the best that scales, {best.name}," if len(wide) > 1 else best.name
        return f"Do not scale: {base.name} is faster. It reaches {goal} in {its}, {other} in {mine}.", base
    same = f"They reach {goal} in {mine} and {its}: a difference within noise (<5%)."
    return f"Do not scale: {best.name} is no faster than {base.name}. {same}", base


def _crowded(reached: list[Summary]) -> str:
    """The headline where every scaled run had to share cores: only the samples they needed can be compared."""
    text = "This machine cannot tell whether scaling pays: it has fewer cores than workers."
    known = [row for row in reached if np.isfinite(row.samples_to_target)]
    if not known:
        return text
    least = min(known, key=lambda row: row.samples_to_target)
    return f"{text} {least.name} needs the fewest samples to the target, {count(least.samples_to_target)}."


def _unreached(alive: list[Summary], fair: list[Summary], target: float | None) -> str:
    """The headline where nobody reached the target, or there is none."""
    known = [row for row in alive if np.isfinite(row.best)]
    if not any(row.state == "finished" for row in alive) and target is None:
        return "No run went to its end, so there is no target to compare times to: let one finish, or set a target."
    if target is None or not known:
        fast = max(fair, key=lambda row: np.nan_to_num(row.samples_per_s))
        text = "No finished run learnt anything, so there is no target to compare times to."
        return (
            f"{text} {fast.name} is the fastest, with {count(fast.samples_per_s)} samples/s." if len(fair) > 1 else text
        )
    near = min(known, key=lambda row: row.best)
    return (
        f"No run reached a {near.kind} loss of {number(target)}: the closest is {near.name} with {number(near.best)} "
        f"after {seconds(near.time)}. Train longer, change the learning rate, or set an easier target."
    )


def _why(alive: list[Summary], fair: list[Summary], best: Summary | None, base: Summary | None) -> list[str]:
    """What the recommended run, or the best scaled one where none is recommended, gains and loses."""
    wide = [row for row in fair if not row.is_serial] or [row for row in alive if not row.is_serial]
    if not wide:
        return []
    reached = sorted((row for row in wide if row.reached), key=lambda row: row.time_to_target)
    row = reached[0] if reached else max(wide, key=lambda row: np.nan_to_num(row.samples_per_s))
    against = _against_base(row, base) if base is not None else []
    reasons = against + _costs(row, named=bool(against) or best is row)
    if best is row:
        reasons += _limits(row, base)
        close = [other.name for other in reached[1:] if other.time_to_target < (1 + NOISE) * row.time_to_target]
        if close:
            reasons.append(
                f"{listing(close)} {'is' if len(close) == 1 else 'are'} within noise of it (<5%): take either."
            )
    threaded = any(other.is_serial and other.threads > 1 for other in alive)
    if base is not None and base.cores > 1 and not threaded:
        reasons.append(f"The baseline used one thread; one process with all {base.cores} cores was not measured.")
    return reasons


def _against_base(row: Summary, base: Summary) -> list[str]:
    """Hardware and statistical efficiency: their product is the speed-up."""
    rate = row.samples_per_s / base.samples_per_s
    need = row.samples_to_target / base.samples_to_target if base.samples_to_target else NAN
    if not np.isfinite(rate):
        return []
    text = f"{row.name} processes {factor(rate)} the samples a second of {base.name}"
    if not np.isfinite(need):
        return [text + "."]
    if abs(need - 1) < NOISE:
        return [text + " and needs as many samples to the target."]
    text += f" and needs {factor(need)} the samples to the target"
    steps = (row.steps_to_target, base.steps_to_target)
    return [f"{text} ({count(steps[0])} steps against {count(steps[1])})." if np.isfinite(steps).all() else text + "."]


def _costs(row: Summary, named: bool) -> list[str]:
    """Where its time went, what was sent, how stale its updates were, and who was slow; `named`: whose has just been said."""
    reasons = []
    if np.isfinite(row.compute):
        sent = f" ({size(row.bytes_per_step)} sent a step)" if row.bytes_per_step > 0 else ""
        split = f"{percent(row.compute)} is compute, {percent(row.wait)} waiting, {percent(row.comm)} communication"
        whose = "Of" if named else f"{row.name}: of"
        reasons.append(f"{whose} its ranks' time {split}{sent}.")
        if row.wait + row.comm > row.compute and row.compute_per_step < 1e-3:
            work = f"A step has only {seconds(row.compute_per_step)} of computing"
            reasons.append(f"{work}, too little to share: a larger batch or model would scale better.")
    if row.staleness >= 0.05:
        reasons.append(f"Its updates are {row.staleness:.1f} steps stale on average.")
    if row.slow:
        reasons.append(row.slow[0].upper() + row.slow[1:] + ".")
    return reasons


def _limits(row: Summary, base: Summary | None) -> list[str]:
    """What stands against the recommended run: its efficiency, and its start."""
    if base is None or row.speedup_by != "time to target":
        return []
    reasons = []
    if row.workers > 1:
        reasons.append(
            f"Its efficiency is {percent(row.efficiency)}: {row.workers} workers do the work of {row.speedup:.3g}."
        )
    if row.placing + row.time_to_target > base.placing + base.time_to_target:
        start = f"placing it and starting took {seconds(row.placing)}"
        reasons.append(f"This holds with the data in place: {start}, and from cold {base.name} is first.")
    return reasons


def _crowding(alive: list[Summary]) -> list[str]:
    crowded = [row for row in alive if row.crowded]
    if not crowded:
        return []
    worst = max(crowded, key=lambda row: row.workers)
    every = len(crowded) == len([row for row in alive if not row.is_serial])
    which = "speed-ups" if every else f"the speed-ups of {listing([row.name for row in crowded])}"
    cores = f"{worst.cores} core{'s' * (worst.cores != 1)}"
    return [f"{worst.workers} workers shared {cores}: {which} measured here mean nothing."]


def _troubles(rows: Sequence[Summary]) -> list[str]:
    notes = []
    for row in rows:
        if row.failed:
            at = f" after {seconds(row.time)}" if np.isfinite(row.time) else ""
            notes.append(f"{row.name} failed{at}: {(row.error or 'no error was recorded').rstrip('.')}.")
            continue
        if row.state == "stopped" and not row.reached:
            notes.append(f"{row.name} was stopped after {seconds(row.time)}.")
        if row.diverged:
            best = f"after {number(row.best)} at best " if row.best < row.first else ""
            end = f"its loss rose to {number(row.loss)}" if np.isfinite(row.loss) else "its loss is no longer finite"
            notes.append(f"{row.name} diverged: {best}{end}; try a smaller learning rate.")
        elif row.state == "finished" and row.best >= row.first:
            notes.append(
                f"{row.name} never got below its first loss of {number(row.first)}; try another learning rate."
            )
    return notes


def _faults(rows: Sequence[Summary]) -> list[str]:
    """What was broken on purpose, and in which run."""
    by_faults: dict[tuple[str, ...], list[str]] = {}
    for row in rows:
        by_faults.setdefault(row.faults, []).append(row.name)
    by_faults.pop((), None)
    notes = []
    for faults, names in by_faults.items():
        shown, more = list(faults[:2]), len(faults) - 2
        whose = "Every run" if len(names) == len(rows) > 1 else listing(names)
        notes.append(f"{whose} suffered on purpose: {listing(shown + [f'{more} more'] * (more > 0))}.")
    return notes


def _target_notes(alive: list[Summary], target: float | None, computed: bool) -> list[str]:
    notes = []
    if computed and target is not None:
        notes.append(f"No target was given: {number(target)} is the loss that every finished run that learnt reached.")
    if any(row.kind == "training" and np.isfinite(row.best) for row in alive):
        notes.append(
            "Nothing was held out: these are training losses and say nothing about new data; give validation=."
        )
    reached = [row for row in alive if row.reached]
    if reached and all(row.early for row in reached):
        notes.append(
            "The target was passed before the second evaluation, so these times are rough: set a harder target."
        )
    missed = [row for row in alive if not (row.reached or row.running or row.diverged) and np.isfinite(row.best)]
    if missed and reached:
        names = [f"{row.name} ({number(row.best)} at best)" for row in missed]
        notes.append(f"{listing(names)} did not reach it.")
    if any(row.speedup_by == "samples/s" for row in alive) and len(alive) > 1:
        notes.append("Where no time to the target can be compared, speed-up is the ratio of samples a second.")
    return notes
