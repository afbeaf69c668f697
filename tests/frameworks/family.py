"""The frameworks that every table of tests goes through: a small model of each, for rows of seven numbers and three classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


def torch_model(**settings: Any) -> Any:
    """A perceptron of PyTorch's, which draws its weights under the run's seed."""
    pytest.importorskip("torch")
    from torch import nn

    from scaleml import TorchModel

    def make() -> nn.Module:
        return nn.Sequential(nn.Linear(7, 6), nn.Tanh(), nn.Linear(6, 3))

    return TorchModel(make, "cross_entropy", **settings)


FRAMEWORKS: dict[str, Callable[..., Any]] = {"torch": torch_model}
"""By name; settings are ``dtype`` and whatever all have. Whatever the framework, the start may be its own."""
