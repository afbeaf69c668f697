"""The frameworks that every table of tests goes through: a small model of each, for rows of seven numbers and three classes."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest


def torch_model(**settings: Any) -> Any:
    """A perceptron of PyTorch's, which draws its weights under the run's seed."""
    pytest.importorskip("torch")
    from torch import nn

    from scaleml import TorchModel

    def make() -> nn.Module:
        return nn.Sequential(nn.Linear(7, 6), nn.Tanh(), nn.Linear(6, 3))

    return TorchModel(make, "cross_entropy", **settings)


@cache
def jax_model(**settings: Any) -> Any:
    """The same of JAX's; kept, for so is what it has compiled."""
    pytest.importorskip("jax")
    from scaleml import JaxModel

    return JaxModel(perceptron, {"first": dense(7, 6), "second": dense(6, 3)}, "cross_entropy", **settings)


def dense(inputs: int, outputs: int) -> dict[str, Any]:
    kernel = np.random.default_rng(inputs).uniform(-1, 1, (inputs, outputs)) / np.sqrt(inputs)
    return {"kernel": kernel.astype("f4"), "bias": np.zeros(outputs, "f4")}


def perceptron(params: Any, x: Any) -> Any:
    import jax.numpy as jnp

    first, second = params["first"], params["second"]
    return jnp.tanh(x @ first["kernel"] + first["bias"]) @ second["kernel"] + second["bias"]


def keras_model(**settings: Any) -> Any:
    """The same of Keras's, on the backend that the process has."""
    pytest.importorskip("keras")
    import keras

    from scaleml import KerasModel

    def make() -> Any:
        layers = [keras.layers.Dense(n, activation, name=name) for n, activation, name in SIZES]
        return keras.Sequential([keras.Input((7,)), *layers])

    return KerasModel(make, "cross_entropy", **settings)


SIZES = (6, "tanh", "first"), (3, None, "second")

FRAMEWORKS: dict[str, Callable[..., Any]] = {"torch": torch_model, "jax": jax_model, "keras": keras_model}
"""By name; settings are whatever all have. Whatever the framework, the start may be its own."""


def precise(name: str) -> tuple[Any, float]:
    """Return the model of a framework in float64, and how near to each other two ways to the same must come; Keras has float32 alone."""
    return (FRAMEWORKS[name](), 2e-4) if name == "keras" else (FRAMEWORKS[name](dtype="float64"), 1e-9)
