"""scaleml: train a model under any scaling strategy, see what each one costs, and know which one to use."""

from __future__ import annotations

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scaleml import compression, faults
    from scaleml.api.compare import compare
    from scaleml.api.detached import attach
    from scaleml.api.doctor import doctor
    from scaleml.api.resume import resume
    from scaleml.api.run import Run
    from scaleml.api.spmd import spmd
    from scaleml.api.train import start, train
    from scaleml.api.trial import Trial
    from scaleml.cluster.embedded import close
    from scaleml.cluster.errors import RunFailed
    from scaleml.frameworks.current_rank import communicator, rank, size
    from scaleml.frameworks.jax import JaxModel
    from scaleml.frameworks.keras import KerasModel
    from scaleml.frameworks.torch import TorchModel
    from scaleml.lab import Lab
    from scaleml.models import MLP, LinearModel
    from scaleml.optim import SGD, Adam
    from scaleml.optim import AdaGrad as AdaGrad
    from scaleml.strategies import AllReduce, Gossip, Hogwild, LocalSGD, ParameterServer, Serial
    from scaleml.telemetry import Comparison as Comparison

# Imported when first used: a worker that only needs a rank does not load what the client needs.
_HOMES = {
    "AdaGrad": "scaleml.optim",
    "Adam": "scaleml.optim",
    "AllReduce": "scaleml.strategies",
    "Comparison": "scaleml.telemetry",
    "Gossip": "scaleml.strategies",
    "Hogwild": "scaleml.strategies",
    "JaxModel": "scaleml.frameworks.jax",
    "KerasModel": "scaleml.frameworks.keras",
    "Lab": "scaleml.lab",
    "LinearModel": "scaleml.models",
    "LocalSGD": "scaleml.strategies",
    "MLP": "scaleml.models",
    "ParameterServer": "scaleml.strategies",
    "Run": "scaleml.api.run",
    "RunFailed": "scaleml.cluster.errors",
    "SGD": "scaleml.optim",
    "Serial": "scaleml.strategies",
    "TorchModel": "scaleml.frameworks.torch",
    "Trial": "scaleml.api.compare",
    "attach": "scaleml.api.detached",
    "close": "scaleml.cluster.embedded",
    "communicator": "scaleml.frameworks.current_rank",
    "compare": "scaleml.api.compare",
    "doctor": "scaleml.api.doctor",
    "rank": "scaleml.frameworks.current_rank",
    "resume": "scaleml.api.resume",
    "size": "scaleml.frameworks.current_rank",
    "spmd": "scaleml.api.spmd",
    "start": "scaleml.api.train",
    "train": "scaleml.api.train",
}

__all__ = [
    "MLP",
    "SGD",
    "Adam",
    "AllReduce",
    "Gossip",
    "Hogwild",
    "JaxModel",
    "KerasModel",
    "Lab",
    "LinearModel",
    "LocalSGD",
    "ParameterServer",
    "Run",
    "RunFailed",
    "Serial",
    "TorchModel",
    "Trial",
    "attach",
    "close",
    "communicator",
    "compare",
    "compression",
    "doctor",
    "faults",
    "rank",
    "resume",
    "size",
    "spmd",
    "start",
    "train",
]
__version__ = "0.1.0"

# Silent unless the program that uses it wants to hear: logging.getLogger("scaleml").setLevel("INFO"), and a handler.
logging.getLogger("scaleml").addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    if name in ("callbacks", "checkpoint", "compression", "faults"):
        return import_module(f"scaleml.{name}")
    if name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'scaleml' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
