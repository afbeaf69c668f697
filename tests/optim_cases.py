"""What tests of optimizers share: the rules, and a small problem."""

import numpy as np

from scaleml.optim import SGD, AdaGrad, Adam, AdamW, CosineAnnealing, Warmup

ALGORITHMS = [
    SGD(0.1),
    SGD(0.1, momentum=0.9),
    SGD(0.1, momentum=0.8, nesterov=True),
    Adam(0.1),
    AdaGrad(0.1),
    AdamW(0.1, 0.3),
    SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.3),
    Adam(0.1, weight_decay=0.3),
    AdaGrad(0.1, weight_decay=0.3),
]
GROUPED = AdamW(0.01, schedule=Warmup(updates=4, then=CosineAnnealing()), no_decay="*bias")
SCHEDULES = ["constant", "optimal", "invscaling", "adaptive", Warmup(updates=3, then=CosineAnnealing())]


def names(value):
    return repr(value)


def begun(optimizer, size, dtype):
    """Return the state before the first update, of a run of 4 epochs of 10 updates for a schedule that asks."""
    state = optimizer.init(size, dtype)
    optimizer.follow_run(state, updates=0, done=0.0, pace=10, epochs=4)
    return state


def run(optimizer, w, gradients, **kwargs):
    """Return the parameters and the state after one update a gradient, all from copies."""
    w = w.copy()
    state = begun(optimizer, len(w), w.dtype)
    for t, g in enumerate(gradients, start=1):
        optimizer.apply(w, g.copy(), state, t, **kwargs)
    return w, state


def problem(size=31, steps=12, dtype="float64"):
    rng = np.random.default_rng(0)
    return rng.standard_normal(size).astype(dtype), list(rng.standard_normal((steps, size)).astype(dtype))
