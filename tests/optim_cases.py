"""What tests of optimizers share: the rules, and a small problem."""

import numpy as np

from scaleml.optim import SGD, AdaGrad, Adam

ALGORITHMS = [SGD(0.1), SGD(0.1, momentum=0.9), SGD(0.1, momentum=0.8, nesterov=True), Adam(0.1), AdaGrad(0.1)]
SCHEDULES = ["constant", "optimal", "invscaling", "adaptive"]


def names(value):
    return repr(value)


def run(optimizer, w, gradients, **kwargs):
    """Return the parameters and the state after one update a gradient, all from copies."""
    w = w.copy()
    state = optimizer.init(len(w), w.dtype)
    for t, g in enumerate(gradients, start=1):
        optimizer.apply(w, g.copy(), state, t, **kwargs)
    return w, state


def problem(size=31, steps=12, dtype="float64"):
    rng = np.random.default_rng(0)
    return rng.standard_normal(size).astype(dtype), list(rng.standard_normal((steps, size)).astype(dtype))
