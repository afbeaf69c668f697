"""Fixtures of the lab's tests: one embedded cluster for all, and labs that are closed whatever happens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import scaleml
from embedded import embedded
from scaleml.optim import SGD


@pytest.fixture(scope="module")
def cluster() -> Any:
    """The embedded cluster, as a lab without a client makes it."""
    return embedded(2)


@pytest.fixture
def lab(cluster: Any) -> Iterator[Callable[..., Any]]:
    """Make labs on two workers and data that is learnt at once; an epoch is 15 steps."""
    random = np.random.default_rng(0)
    x = random.standard_normal((600, 20), dtype=np.float32)
    y = (x @ random.standard_normal(20) > 0).astype(int)
    made = []

    def make(model: Any = None, X: Any = x, Y: Any = y, **settings: Any) -> Any:
        # These tests look at runs, not at what rounds show.
        common = {"workers": 2, "batch_size": 32, "epochs": 3, "optimizer": SGD(0.1), "repeats": 1}
        model = scaleml.LinearModel() if model is None else model
        made.append(scaleml.Lab(model, X, Y, **{**common, "strategies": [scaleml.AllReduce()], **settings}))
        return made[-1]

    yield make
    for one in made:
        one.close()
