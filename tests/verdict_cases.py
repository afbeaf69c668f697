"""Contenders made of thin air, a round for each factor of luck: what verdicts are tested with."""

import numpy as np

from scaleml.telemetry.summary import Summary
from scaleml.telemetry.verdict import judge
from scaleml.telemetry.verdict.series import Series

LUCK = (1.0, 1.02, 0.99, 1.01, 0.98, 1.0)


def summary(strategy="AllReduce()", time_to_target=None, **values):
    """A finished run that reached the target at that time, or did not if that is None."""
    given = {
        "strategy": strategy,
        "is_serial": strategy.startswith("Serial"),
        "workers": 1 if strategy.startswith("Serial") else 2,
        "cores": 4,
        "time": 20.0,
        "samples_per_s": 1000.0,
        "first": 0.7,
        "best": 0.15,
        "loss": 0.15,
        "end": 0.15,
        "held": 0.15,
        "optimizer": "SGD(0.1)",
        "rows_an_update": 256,
    }
    if time_to_target is not None:
        given |= {"time_to_target": time_to_target, "samples_to_target": 8000.0, "steps_to_target": 80.0}
    else:
        given |= {"best": 0.3, "loss": 0.3, "end": 0.3, "held": 0.3}
    return Summary(**(given | values))


def contender(strategy="AllReduce()", time=None, *, luck=LUCK, seed=1, target=0.2, **values):
    """One contender, a round for each factor of `luck`, in an order of its own."""
    factors = np.random.default_rng(seed).permutation(luck)
    times = [None if time is None else time * factor for factor in factors]
    return series([summary(strategy, each, **values) for each in times], target)


def series(rows, target=0.2):
    return Series(tuple(rows), tuple(("c", i) for i in range(len(rows))), target)


def serial(time=None, strategy="Serial()", **values):
    return contender(strategy, time, **({"seed": 0} | values))


def verdict(*contenders, target=0.2, computed=False):
    return judge(contenders, target, computed)
