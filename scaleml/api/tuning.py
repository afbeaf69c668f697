"""Tuning: the same number of trials on the same space for every contender, by successive halving.

Every contender tries the same rates and rows an update, as multiples of its own. All run for a part of the epochs, the better half
goes on with twice as many, and so forth; better is a lower held-out loss at the same time on the training clock.

References
----------
Jamieson and Talwalkar, Non-stochastic best arm identification and hyperparameter optimization, 2016. Why equal tuning matters:
Shallue et al., Measuring the effects of data parallelism on neural network training, 2019.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Final, final

import numpy as np

from scaleml.api.contenders import Contender, scaled
from scaleml.api.rounds import Allowance, Runner
from scaleml.telemetry.curves import Curve, loss_curve
from scaleml.telemetry.formatting import seconds

RATES: Final = (1.0, 2.0, 0.5, 4.0, 0.25, 8.0, 0.125)
"""Multiples of the learning rate."""
BATCHES: Final = (1.0, 0.25, 4.0, 0.5, 2.0)
"""Multiples of the batch; the rate is scaled along with it."""
_SEEDS: Final = 1_000_003
"""Distance of the tuning stage's seeds from those of the rounds: who was chosen by them must win again on others."""


@final
@dataclass(frozen=True)
class Candidate:
    """One point of the search space."""

    rate: float
    batch: float

    def of(self, one: Contender) -> Contender:
        """Return a contender with these settings."""
        settings = one.settings
        batch = max(1, round(settings.batch_size * self.batch))
        optimizer = settings.optimizer
        if settings.steps is None:  # an estimator's own steps know the rows of an update themselves
            optimizer = scaled(optimizer, batch / settings.batch_size)
        if optimizer.schedule != "optimal":
            optimizer = optimizer.with_rate(optimizer.learning_rate * self.rate)
        return replace(one, settings=replace(settings, optimizer=optimizer, batch_size=batch))


def candidates(trials: int, seed: int) -> list[Candidate]:
    """Return so many points of the search space: the settings as they are, then others by chance, the same for every contender."""
    space = [Candidate(rate, batch) for rate, batch in product(RATES, BATCHES)]
    others = np.random.default_rng(seed).permutation(len(space) - 1) + 1
    return [space[0], *(space[int(i)] for i in others[: trials - 1])]


def rungs(trials: int, epochs: int) -> list[tuple[int, int]]:
    """Return how many candidates run for how many epochs, rung by rung.

    >>> rungs(8, 20), rungs(3, 5), rungs(1, 5)
    ([(8, 5), (4, 10), (2, 20)], [(3, 3), (1, 5)], [(1, 5)])
    """
    levels = min(3, 1 + int(math.log2(trials)))
    return [(max(1, trials >> level), -(-epochs // 2 ** (levels - 1 - level))) for level in range(levels)]


def ranked(curves: Sequence[Curve], target: float | None) -> list[int]:
    """Return the curves' indices, the best first: who held the target soonest, then who was lowest at a time that all have seen."""
    ends = [float(curve.time[-1]) for curve in curves if len(curve.time)]
    now = min(ends, default=0.0)

    def worth(i: int) -> tuple[float, float]:
        curve = curves[i]
        at = None if target is None else curve.crossing(target)
        return (math.inf if at is None else at[0], loss_at(curve, now))

    return sorted(range(len(curves)), key=worth)


def loss_at(curve: Curve, time: float) -> float:
    """Return the loss at a time, a mean of neighbouring evaluations; inf where it is unknown or not finite."""
    if not len(curve.loss) or not np.isfinite(curve.loss).all():
        return math.inf
    held = curve.held()
    return float(np.interp(time, curve.time[: len(held)], held))


def tune(
    runner: Runner, contenders: Sequence[Contender], trials: int, allowance: Allowance, seed: int
) -> tuple[list[Contender], str | None]:
    """Return the contenders with the settings that did best, and what is to be said of it, None where it was ended early.

    Of a budget at most half is spent here: what does not fit is left out for all of them alike.
    """
    points = candidates(trials, seed)
    alive: list[list[int]] = [list(range(trials)) for _ in contenders]
    began = allowance.spent
    count = 0
    for rung, (keep, _) in enumerate(rungs(trials, 1)):
        seen: list[dict[int, Curve]] = [{} for _ in contenders]
        for place in range(keep):
            if allowance.budget is not None and allowance.spent > 0.5 * allowance.budget and place:
                break
            for entry, one in enumerate(contenders):
                point = alive[entry][place]
                epochs = rungs(trials, one.settings.epochs)[rung][1]
                short = points[point].of(replace(one, settings=replace(one.settings, epochs=epochs, faults=())))
                run = runner.run(short, entry, "tuning", count, None, (seed + _SEEDS + rung) % 2**32)
                count += 1
                if runner.ended:
                    if runner.ended == "stopped":
                        runner.ended = "The comparison was stopped while it was tuning: no round was run."
                    return list(contenders), None
                if run is not None and run.state != "failed":
                    seen[entry][point] = loss_curve(run.history)
        for entry, curves in enumerate(seen):
            names = list(curves)
            best = [names[i] for i in ranked([curves[name] for name in names], runner.target)]
            alive[entry] = [*best, *(point for point in alive[entry] if point not in curves)]
    chosen = [replace(points[alive[i][0]].of(one), has_own_optimizer=True) for i, one in enumerate(contenders)]
    words = "; ".join(
        f"{one.label}: {one.settings.optimizer!r}, batch_size={one.settings.batch_size}" for one in chosen
    )
    cost = f"{count} short runs, {seconds(allowance.spent - began)}"
    return (
        chosen,
        f"Tuned: {trials} settings for each on the same space ({cost}), then run again on other seeds. Chosen: {words}.",
    )
