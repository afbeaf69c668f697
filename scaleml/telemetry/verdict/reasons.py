"""Reasons of a verdict: what it rests on, what would make it surer, what speaks against it. One sentence each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scaleml.telemetry.formatting import count, factor, listing, number, percent, seconds, size
from scaleml.telemetry.held_out import score_sentence
from scaleml.telemetry.summary import NAN, Summary
from scaleml.telemetry.verdict.case import Case
from scaleml.telemetry.verdict.claims import Claim
from scaleml.telemetry.verdict.series import ALONE, Series
from scaleml.telemetry.verdict.statistics import MEANINGFUL

_MANY = 100
"""More rounds than these nobody will run."""
_HARDLY = 0.02
"""A loss that has gone down by no more of what it was at first has not been learnt by."""
ALIKE = 0.05
"""Numbers that differ by less are said to be the same."""


def reasons(case: Case, best: Series | None) -> list[str]:
    """What the recommended contender, or the best scaled one where none is recommended, gains and loses."""
    found = _sureness(case)
    candidates = case.fit or case.wide or [one for one in case.alive if not case.row(one).is_serial]
    if candidates:
        subject = candidates[0] if case.wide else max(candidates, key=lambda one: _rate(case.row(one)))
        found += _subject(case, subject, best)
    return found + _about_learning(case, best) + _doubts(case) + _crowding([case.row(one) for one in case.alive])


def _subject(case: Case, subject: Series, best: Series | None) -> list[str]:
    """What one that scales gains and loses."""
    row, base = case.row(subject), case.base
    its = None if base is None else case.row(base)
    against = [] if its is None else _against_base(row, its)
    found = [*_smaller_batch(case, subject), *against, *_costs(row, named=bool(against) or best is subject)]
    if best is subject and base is not None and its is not None and its.reached:
        found += _limits(case, subject, base)
    found += _others(case, subject)
    threaded = any(other.is_serial and other.threads > 1 for other in case.rows)
    by_hand = subject.rounds[0][0] == ALONE  # `compare` says itself what it has left out
    if by_hand and its is not None and its.cores > 1 and not threaded:
        found.append(f"The baseline used one thread; one process with all {its.cores} cores was not measured.")
    return found


def _about_learning(case: Case, best: Series | None) -> list[str]:
    """What larger batches would bring, whether it overfits, and what its score is worth; of the best that has something to say."""
    reached = [*([] if best is None else [best]), *case.fit, *([] if case.base is None else [case.base])]
    rows = [case.row(one) for one in reached] or [case.row(one) for one in case.alive]
    noise = next((row.noise for row in rows if row.noise), "")
    rises = [f"{row.name}: {row.overfits}; its model is the one of then." for row in rows if row.overfits]
    worth = [
        f"{row.name}: {score_sentence(row.score_name, row.score, row.baseline)}"
        for row in rows[:1]
        if np.isfinite(row.score) and np.isfinite(row.baseline)
    ]
    return [sentence for sentence in (noise, *rises[:1], *worth) if sentence]


def _sureness(case: Case) -> list[str]:
    """What would settle what is not settled."""
    if not case.wide or (case.base is None and len(case.wide) < 2):
        return []
    if case.rounds < 2:
        more = seconds(4 * case.round_seconds)
        return [f"Five rounds can claim something: 4 more would take about {more} (repeats=5)."]
    first, second = (case.wide[1], case.wide[0]) if case.base is None else (case.base, (case.fit or case.wide)[0])
    claim = case.claims.slower(first, second)
    if claim.holds or case.claims.slower(second, first).holds:
        return []
    near = claim.interval.excludes_one and max(claim.pair.ratio, 1 / claim.pair.ratio) > MEANINGFUL
    found = ["The interval excludes 1, but a claim is held to 98%."] if near else []
    return found + _what_settles(case, claim)


def _what_settles(case: Case, claim: Claim) -> list[str]:
    more_rounds = claim.more_rounds
    if more_rounds is None or more_rounds > _MANY:
        return ["More rounds would hardly show a difference that matters."] if claim.rounds >= 5 else []
    cost = seconds(more_rounds * case.round_seconds)
    rounds = f"{more_rounds} more round{'s' * (more_rounds != 1)}, about {cost}"
    return [f"{rounds}, would probably settle it (repeats={claim.rounds + more_rounds})."]


def _smaller_batch(case: Case, subject: Series) -> list[str]:
    """How much of a gain is what fewer rows an update give, to one process as well."""
    twin, row = case.twin(subject), case.row(subject)
    wider = [one for one in case.bases if case.row(one).rows_an_update > row.rows_an_update and case.row(one).reached]
    if twin is None or not case.row(twin).reached or not wider:
        return []
    other = min(wider, key=lambda one: case.row(one).time_to_target)
    claim = case.claims.slower(other, twin)
    rows, more = row.rows_an_update, case.row(other).rows_an_update
    what = f"Updates of {rows} rows (rate {number(row.learning_rate)}) instead of {more} (rate {number(case.row(other).learning_rate)})"
    if claim.holds:
        part = "that part of a gain is those settings', not parallelism's"
        return [f"{what} make one process {claim.pair.ratio:.3g} times as fast: {part}."]
    gain = case.gain(subject)
    if gain is None or not gain.holds:
        return []
    return [f"{what} are not shown to help one process: the gain is not theirs."]


def _against_base(row: Summary, base: Summary) -> list[str]:
    """Hardware and statistical efficiency: their product is the speed-up."""
    rate = row.samples_per_s / base.samples_per_s
    need = row.samples_to_target / base.samples_to_target if base.samples_to_target else NAN
    if not np.isfinite(rate):
        return []
    text = f"{row.name} processes {factor(rate)} the samples a second of {base.name}"
    if not np.isfinite(need):
        return [text + "."]
    if abs(need - 1) < ALIKE:
        return [text + " and needs as many samples to the target."]
    text += f" and needs {factor(need)} the samples to the target"
    steps = (round(row.steps_to_target, 0), round(base.steps_to_target, 0))
    return [f"{text} ({count(steps[0])} steps against {count(steps[1])})." if np.isfinite(steps).all() else text + "."]


def _costs(row: Summary, named: bool) -> list[str]:
    """Where its time went, what was sent, how stale its updates were, and who was slow; `named`: whose has just been said."""
    found = []
    if np.isfinite(row.compute):
        sent = f" ({size(row.bytes_per_step)} sent a step)" if row.bytes_per_step > 0 else ""
        split = f"{percent(row.compute)} is compute, {percent(row.wait)} waiting, {percent(row.comm)} communication"
        whose = "Of" if named else f"{row.name}: of"
        found.append(f"{whose} its ranks' time {split}{sent}.")
        if row.wait + row.comm > row.compute and row.compute_per_step < 1e-3:
            work = f"A step has only {seconds(row.compute_per_step)} of computing"
            found.append(f"{work}, too little to share: a larger batch or model would scale better.")
    if row.staleness >= 0.05:
        found.append(f"Its updates are {row.staleness:.1f} steps stale on average.")
    if row.slow:
        found.append(row.slow[0].upper() + row.slow[1:] + ".")
    return found


def _limits(case: Case, subject: Series, base: Series) -> list[str]:
    """What stands against the recommended one: its efficiency, and its start."""
    row, its = case.row(subject), case.row(base)
    gain = case.claims.slower(base, subject)
    found = []
    if row.workers > 1 and np.isfinite(gain.pair.ratio):
        part = gain.pair.ratio / row.workers
        found.append(f"Its efficiency is {percent(part)}: {row.workers} workers do the work of {gain.pair.ratio:.3g}.")
    saved = its.time_to_target - row.time_to_target
    later = _start(row) - _start(its)
    if saved > 0 and saved <= later:
        runs = later / saved
        starts = f"bringing the data and starting took {seconds(_start(row))} against {seconds(_start(its))}"
        worth = f"it pays for runs {runs:.2g} times as long, or for {int(np.ceil(runs))} such runs on data in place"
        found.append(f"From cold {its.name} is first: {starts}, and a run saves {seconds(saved)}; {worth}.")
    elif saved > 0:
        cold = (_start(row) + row.time_to_target, _start(its) + its.time_to_target)
        found.append(
            f"From cold, with bringing the data and starting, it is {seconds(cold[0])} against {seconds(cold[1])}."
        )
    return found


def _others(case: Case, subject: Series) -> list[str]:
    """Which of the others that scale are not shown to be slower."""
    rest = [one for one in case.fit if one is not subject]
    if case.rounds < 2 or not rest:
        return []
    alike = [one for one in rest if not case.claims.slower(one, subject).holds]
    if not alike:
        return []
    names = listing([case.row(one).name for one in alike])
    verb = "is" if len(alike) == 1 else "are"
    return [f"{names} {verb} not shown to be slower than {case.row(subject).name}: take either."]


def _doubts(case: Case) -> list[str]:
    """What is shown and said, but counts for nothing."""
    found = [remark for one in case.series for remark in one.remarks]
    found += [
        f"{case.row(one).name} claims nothing: {case.doubt(one)}." for one in case.wide if case.doubt(one) and case.fit
    ]
    return found


def _crowding(alive: Sequence[Summary]) -> list[str]:
    crowded = [row for row in alive if row.crowded]
    if not crowded:
        return []
    worst = max(crowded, key=lambda row: row.workers)
    every = len(crowded) == len([row for row in alive if not row.is_serial])
    which = "speed-ups" if every else f"the speed-ups of {listing([row.name for row in crowded])}"
    cores = f"{worst.cores} core{'s' * (worst.cores != 1)}"
    return [f"{worst.workers} workers shared {cores}: {which} measured here mean nothing."]


def troubles(rows: Sequence[Summary]) -> list[str]:
    """Who failed, was stopped, diverged or learnt nothing; what has been said of one is not said again of the next."""
    notes: list[str] = []
    for row in rows:
        if row.failed:
            at = f" after {seconds(row.time)}" if np.isfinite(row.time) else ""
            first, *more = (row.error or "no error was recorded").rstrip(".").split(". ")
            news = [first, *(sentence for sentence in more if not any(sentence in note for note in notes))]
            notes.append(f"{row.name} failed{at}: {'. '.join(news)}.")
            continue
        if row.state == "stopped" and not row.reached:
            notes.append(f"{row.name} was stopped after {seconds(row.time)}.")
        if row.diverged:
            best = f"after {number(row.best)} at best " if row.best < row.first else ""
            end = f"its loss rose to {number(row.loss)}" if np.isfinite(row.loss) else "its loss is no longer finite"
            remedy = row.suspect or "try a smaller learning rate"
            is_new = not any(remedy in note for note in notes)
            notes.append(f"{row.name} diverged: {best}{end}{f'; {remedy}' * is_new}.")
        elif row.state == "finished" and row.best >= row.first:
            notes.append(
                f"{row.name} never got below its first loss of {number(row.first)}; try another learning rate."
            )
    return notes


def hardly_learnt(rows: Sequence[Summary]) -> list[str]:
    """Whether all that finished, and did not diverge, end about where they began: what is said of their times is true, and worth little.

    Examples
    --------
    >>> hardly_learnt([Summary(strategy="AllReduce()", first=1.609, best=1.607, loss=1.607)])
    ['Hardly learnt: no run came more than 2% below its first held-out loss (1.609, 1.607 at best), so these times are not those of \
learning; try another learning rate or optimizer, or more epochs.']
    """
    done = [row for row in rows if row.state == "finished" and np.isfinite([row.first, row.best]).all()]
    tried = [row for row in done if not row.diverged]
    if not tried or all(row.best >= row.first for row in tried):  # which `troubles` says of each
        return []
    why = ""
    if all(row.first - row.best <= _HARDLY * abs(row.first) for row in tried):
        near = min(tried, key=lambda row: row.best - row.first)
        losses = f"{near.kind} loss ({number(near.first)}, {number(near.best)} at best)"
        why = f"no run came more than {percent(_HARDLY)} below its first {losses}"
    elif all(row.score <= row.baseline for row in tried):  # NaN is not
        score = max(tried, key=lambda row: row.score)
        why = f"no run's {score.score_name} ({number(score.score)} at best) is above that of knowing nothing, {number(score.baseline)}"
    remedy = "so these times are not those of learning; try another learning rate or optimizer, or more epochs"
    return [f"Hardly learnt: {why}, {remedy}."] if why else []


def faults(rows: Sequence[Summary]) -> list[str]:
    """What was broken on purpose, and in which run."""
    by_faults: dict[tuple[str, ...], list[str]] = {}
    for row in rows:
        by_faults.setdefault(row.faults, []).append(row.name)
    by_faults.pop((), None)
    notes = []
    for names_of, names in by_faults.items():
        shown, more = list(names_of[:2]), len(names_of) - 2
        whose = "Every run" if len(names) == len(rows) > 1 else listing(names)
        notes.append(f"{whose} suffered on purpose: {listing(shown + [f'{more} more'] * (more > 0))}.")
    return notes


def target_notes(case: Case) -> list[str]:
    """What is to be known of the target and of those that missed it."""
    alive, notes, target = [case.row(one) for one in case.alive], [], case.target
    if case.computed and target is not None:
        notes.append(
            f"No target was given: {number(target)} is the loss that every finished run that learnt reached and held."
        )
    if any(row.kind == "training" and np.isfinite(row.best) for row in alive):
        notes.append(
            "Nothing was held out: these are training losses and say nothing about new data; give validation=."
        )
    reached = [row for row in alive if row.reached]
    if reached and all(row.early for row in reached):
        notes.append(
            "The target was passed before the second evaluation, so these times are rough: set a harder target."
        )
    for one in case.alive:
        misses = sum(1 for time in one.times.values() if np.isinf(time))
        if 0 < misses < len(one.times):
            notes.append(f"{case.row(one).name} missed the target in {misses} of {len(one.times)} rounds.")
    missed = [row for row in alive if not (row.reached or row.running or row.diverged) and np.isfinite(row.best)]
    if missed and reached:
        names = [f"{row.name} ({number(row.best)} at best)" for row in missed]
        notes.append(f"{listing(names)} did not reach it and stay there.")
    return notes


def _start(row: Summary) -> float:
    return row.placing if np.isfinite(row.placing) else 0.0


def _rate(row: Summary) -> float:
    return float(np.nan_to_num(row.samples_per_s))
