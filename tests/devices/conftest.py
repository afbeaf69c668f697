"""A rank's GPU, stood in for: ranks are threads, and NumPy's functions fail on what lies on it."""

from __future__ import annotations

import numpy as np
import pytest

import fake_cupy
from runtime.harness import on_threads
from scaleml import devices
from scaleml.devices import Gpu
from scaleml.optim import SGD
from scaleml.runtime.stop_rule import StopRule

__all__ = ["cupy"]

RNG = np.random.default_rng(0)
X = RNG.standard_normal((96, 6)).astype("f4")
Y = (X @ RNG.standard_normal((6, 3))).argmax(axis=1)


@pytest.fixture
def cupy(monkeypatch):
    monkeypatch.setattr(devices, "_GRACE", 5)
    return fake_cupy.install(monkeypatch, devices=4)


def gpus(layout, *, apart):
    """Return what GPU each rank has: one each, or all the same; servers none."""
    return tuple(
        None if layout.is_server(rank) else Gpu(rank if apart else 0, str(rank if apart else 0), "Stand-in", apart)
        for rank in range(layout.size)
    )


def both(strategy, model, *, apart=True, only=None, x=lambda x: x, on_epochs=False, target=False, **settings):
    """Train on the processor and on GPUs, and return both results; or on ``only`` these."""
    usual = {"optimizer": SGD(0.1, momentum=0.9), "epochs": 2, "batch_size": 24, "validation": (x(X), Y), "workers": 2}
    settings = usual | ({"stop": StopRule(tol=None)} if on_epochs else {}) | settings
    where = gpus(strategy.layout(settings["workers"]), apart=apart)
    y = X[:, 0] if target else Y
    if target:
        settings["validation"] = (x(X), y)
    return [
        on_threads(model, x(X), y, strategy=strategy, gpus=gpu, **settings)
        for gpu in (((), where) if only is None else (only,))
    ]
