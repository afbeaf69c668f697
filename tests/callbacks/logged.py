"""A run of which every number that loggers write is known, and what is to be read back of it."""

from __future__ import annotations

from callbacks.scripted import ScriptedRun, ended, follow
from scaleml.callbacks.followers import CallbackList
from scaleml.telemetry import Comparison
from telemetry_fakes import row

# Two ranks, four steps, an evaluation before, after two and at the end; by hand, at the steps 2 and 4.
SHARES = {"compute": 0.06, "wait": 0.02, "comm": 0.01, "apply": 0.01, "other": 0.0}
EXPECTED = {
    "train/loss": {2: (1 / 1 + 1 / 2) / 2, 4: (1 / 3 + 1 / 4) / 2},
    "train/epoch": {2: 0.5, 4: 1.0},
    "train/samples": {2: 32.0, 4: 64.0},
    "train/samples_per_s": {2: 160.0, 4: 160.0},
    "train/seconds": {2: 0.2, 4: 0.4},
    "train/staleness": {2: 1.5, 4: 1.5},
    **{f"time/{name}": {2: value / 0.1, 4: value / 0.1} for name, value in SHARES.items()},
    "held_out/loss": {0: 0.5, 2: 0.5 / 3, 4: 0.1},
    "held_out/accuracy": {0: 0.9, 2: 0.9, 4: 0.9},
}


def logged(*callbacks, state="finished", place=None, label="AllReduce()", **facts):
    """Have callbacks told of the run that `EXPECTED` is of."""
    run = ScriptedRun(label=label, workers=2, place=place, total_samples=64, **facts)
    run.parameters["strategy"] = label
    run.evaluation(0)
    for steps in ((1, 2), (3, 4)):
        run.rows(*steps, ranks=2, epoch=steps[1] / 4, staleness=1.5, **SHARES)
        run.history.append_rows([row(2, step=99, time=0.15, samples=999, compute=9)])  # a server trains nothing
        run.evaluation(steps[1])
    run.history.mark(0.4, "learning_rate=0.01", step=4)
    assert ended(run, follow(run, *callbacks), state)
    return run


def rounded(found: dict[str, dict[int, float]]) -> dict[str, dict[int, float]]:
    return {name: {step: round(value, 5) for step, value in line.items()} for name, line in found.items()}


def compared(runs, *callbacks):
    """Have callbacks told that the comparison of these runs is over; it is returned."""
    comparison = Comparison(runs)
    assert CallbackList(callbacks).end_comparison(comparison)
    return comparison
