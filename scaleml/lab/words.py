"""Status line: what is happening now and who is slow, with what it cost, in plain words read off the ledger."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

import numpy as np
from numpy.typing import NDArray

from scaleml.lab.trace import Trace
from scaleml.telemetry import Ledger
from scaleml.telemetry.formatting import count, listing, percent, seconds

SLOWER = 1.3
"""A rank whose gradients take so many times as long as the others' is slow, whether anybody waits for it or not."""
BRIEF = 0.1
"""Seconds of waiting that an operating system costs anybody now and then: no reason to name a rank that computes as fast."""


@dataclass(frozen=True)
class Blame:
    """Who is slow, and what it cost.

    Parameters
    ----------
    rank : int
        The slow one.
    cost : float
        Seconds that each of the other training ranks waited for it, on average.
    ratio : float
        Its computing time a step over the others'; NaN if unknown.
    sentence : str
        The same in words.
    """

    rank: int
    cost: float
    ratio: float
    sentence: str


def blame(total: Ledger, recent: Ledger) -> Blame | None:
    """Find the slow rank of the last seconds, and what it has cost since the start; None if no one is slow.

    Where ranks wait for each other it is the one they wait for; where nobody waits, the one that computes longest.
    """
    ratios = computing(recent)
    slow = _slowest(recent, ratios)
    if slow is None or slow not in total.ranks:
        return None
    at = int(np.searchsorted(total.ranks, slow))
    others = (np.arange(len(total.ranks)) != at) & total.workers
    waits = total.waits[others, at]
    cost = float(waits.mean()) if len(waits) else 0.0
    ratio = ratios.get(slow, float("nan"))
    if cost < BRIEF and not ratio >= SLOWER:
        return None
    return Blame(slow, cost, ratio, _sentence(total, at, others, cost, ratio))


def _slowest(recent: Ledger, ratios: dict[int, float]) -> int | None:
    awaited = recent.slow
    worst = max(ratios, key=lambda rank: ratios[rank], default=None)
    if worst is None or ratios[worst] < SLOWER:
        return awaited
    if awaited is None:
        return worst
    at = int(np.searchsorted(recent.ranks, awaited))
    if recent.workers[at]:
        return awaited
    # A server that workers wait for, and a worker that nobody waits for: what costs the larger part of all updates?
    waited = float(recent.waits[recent.workers, at].sum() / recent.wall[recent.workers].sum())
    return awaited if waited > (1 - 1 / ratios[worst]) / len(ratios) else worst


def computing(ledger: Ledger) -> dict[int, float]:
    """Return how many times as long as the other training ranks' each one's steps compute."""
    works = np.flatnonzero(ledger.workers & (ledger.updates > 0))
    steps = {int(ledger.ranks[i]): float(ledger.compute[i] / ledger.updates[i]) for i in works}
    found = {}
    for rank, mine in steps.items():
        others = [step for other, step in steps.items() if other != rank]
        if others and median(others) > 0:
            found[rank] = mine / median(others)
    return found


def _sentence(total: Ledger, at: int, others: NDArray[np.bool_], cost: float, ratio: float) -> str:
    slow = f"rank {total.ranks[at]}"
    if not total.workers[at]:
        return f"the workers waited {seconds(cost)} each for {slow}, a server"
    which = f", which computes {ratio:.1f} times as long" if ratio >= 1.1 else ""
    wall = float(total.wall[others].mean()) if others.any() else 0.0
    if wall and cost < 0.01 * wall:
        share = float(total.updates[at] / total.updates[total.workers].sum())
        return f"{slow} computes {ratio:.1f} times as long; nobody waits for it, and it gave {percent(share)} of the updates"
    names = [str(rank) for rank in total.ranks[others]]
    who = f"rank {names[0]}" if len(names) == 1 else f"ranks {listing(names)}" if len(names) < 5 else "the others"
    each = " each" if len(names) > 1 else ""
    return f"{who} waited {seconds(cost)}{each} for {slow}{which}"


def line(trace: Trace) -> str:
    """Say in one or two sentences how a run stands."""
    run, now = trace.run, trace.now
    name = f"{run.label}"
    if now.state == "failed":
        return f"{name} failed: {run.error or 'no error was recorded'}"
    found = blame(trace.total, trace.total if now.over else trace.recent)
    recovered = [change.text for change in run.history.changes if change.kind == "recovery"]
    said = [found.sentence if found else None, trace.links.sentence(trace.total), *recovered[-1:]]
    slow = "".join(f" {text[0].upper()}{text[1:]}." for text in said if text)
    if now.state == "starting":
        return f"{name} is starting."
    if now.state == "recovering":
        return f"{name} has lost a worker after {seconds(now.time)} of training, and recovers."
    if now.state == "paused":
        return f"{name} is paused after {seconds(now.time)} of training.{slow}"
    if now.over:
        return f"{name} {'has finished' if now.state == 'finished' else 'was stopped'} after {seconds(now.time)}.{slow}"
    if not np.isfinite(now.samples_per_s):
        return f"{name} is taking its first steps."
    most = max(("compute", "wait", "comm"), key=lambda part: now.shares[part])
    verb = {"compute": "computing", "wait": "waiting for each other", "comm": "communicating"}[most]
    text = f"{name} trains on {count(now.samples_per_s)} samples a second"
    who, whose = ("its ranks spend", "their") if trace.total.workers.sum() > 1 else ("it spends", "its")
    return f"{text}; {who} {percent(now.shares[most])} of {whose} time {verb}.{slow}"
