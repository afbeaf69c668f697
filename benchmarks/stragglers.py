"""One slow worker of two: what each consistency model loses, in updates a second and in time to the same loss.

Two fault plans, the same for all strategies: rank 1 slowed four times for good, and a different rank slow every few
steps. BSP goes at the pace of the slowest, async does not wait, SSP waits once its slack is spent. Against BSP in the
first plan, 2.5x the updates is the ideal: in the time of one update of the slow rank, the other takes four.
Both ranks draw from the same 2-core machine, so the steps are made of waiting: Slow sleeps.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .report import Row, alone, compare

ROWS, FEATURES, CLASSES, HIDDEN, BATCH, EPOCHS = 24_000, 256, 10, 256, 2048, 12
FACTOR, EVERY = 4.0, 6
KINDS: dict[str, dict[str, Any]] = {"bsp": {}, "ssp": {"staleness": 4}, "async": {}}
GOAL = 1.1
"""The held-out loss that all must reach: this many times what serial training ends with."""
SETTINGS: dict[str, Any] = {"epochs": EPOCHS, "batch_size": BATCH, "validation": 0.2, "seed": 0}


def measure(rounds: int) -> list[Row]:
    """Measure in `rounds` rounds."""
    from scaleml import faults

    x, y = data()
    target = GOAL * serial_loss(x, y)
    for_good = [faults.Slow(rank=1, factor=FACTOR)]
    in_turn = faults.rotating(2, 3 * EPOCHS * ROWS // BATCH, EVERY, FACTOR, seed=0)
    rows = _rows(f"one of two ranks {FACTOR:g}x slower", x, y, for_good, target, rounds, goal=2.0)
    return rows + _rows("another rank slow every few steps", x, y, in_turn, target, rounds, goal=None)


def _rows(name: str, x: Any, y: Any, plan: Any, target: float, rounds: int, goal: float | None) -> list[Row]:
    rates: dict[str, list[float]] = {kind: [] for kind in KINDS}
    times: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for _ in range(rounds):
        comparison = compared(x, y, plan, target)
        for kind, run, seconds in zip(KINDS, comparison.runs, comparison.table()["time_to_target_s"], strict=True):
            rates[kind].append(updates_a_second(run))
            times[kind].append(seconds)
    rows = []
    for kind, wanted in (("ssp", None), ("async", goal)):
        rows.append(compare(f"{name}: {kind}, updates", "bsp", rates[kind], rates["bsp"], "1/s", wanted))
        to_loss = f"{name}: {kind}, to a loss of {target:.3f}"
        rows.append(compare(to_loss, "bsp", times[kind], times["bsp"], "s", inverse=True))
    return rows


def compared(x: Any, y: Any, plan: Any, target: float) -> Any:
    """Train with every consistency under the same plan of faults."""
    import scaleml

    strategies = [scaleml.ParameterServer(kind, **settings) for kind, settings in KINDS.items()]
    return scaleml.compare(
        scaleml.MLP((HIDDEN,)), x, y, strategies, target=target, workers=2, faults=plan, repeats=1, **SETTINGS
    )


def serial_loss(x: Any, y: Any) -> float:
    """Return the held-out loss that serial training ends with."""
    import scaleml

    run = scaleml.train(scaleml.MLP((HIDDEN,)), x, y, strategy=scaleml.Serial(), workers=1, **SETTINGS)
    return float(run.history.evaluations["loss"][-1])


def updates_a_second(run: Any) -> float:
    """Return how many gradients a second the two ranks that train got into the parameters, each by its own training clock.

    One clock for both would count against async what it does not do: that the fast rank waits for the slow one to come to
    an evaluation, which is no training time.
    """
    history = run.history
    own = [history["rank"] == rank for rank in range(2)]
    return float(sum(history["updates"][rows].sum() / history["time"][rows].max() for rows in own))


def data() -> tuple[Any, Any]:
    """Return X (ROWS, FEATURES) float32 and y: a noisy linear teacher of CLASSES classes."""
    random = np.random.default_rng(0)
    x = random.standard_normal((ROWS, FEATURES), dtype=np.float32)
    scores = x @ random.standard_normal((FEATURES, CLASSES), dtype=np.float32)
    return x, (scores + random.gumbel(size=scores.shape)).argmax(axis=1)


if __name__ == "__main__":
    alone(measure, __doc__)
