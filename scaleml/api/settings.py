"""How to train: everything but the data and the cluster."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np

from scaleml.checks import guess
from scaleml.faults import Fault
from scaleml.models import Model
from scaleml.optim import Optimizer, RowSteps
from scaleml.runtime.plan import Start, StopRule
from scaleml.strategies import Strategy


@dataclass(frozen=True)
class Settings:
    """How to train, checked: everything but the data and the cluster."""

    model: Model
    strategy: Strategy
    optimizer: Optimizer
    epochs: int = 5
    batch_size: int = 256
    shards: int | None = None
    seed: int = 0
    evaluations_an_epoch: int = 1
    faults: tuple[Fault, ...] = ()
    label: str = ""
    stop: StopRule | None = None
    begin: Start | None = None
    steps: Callable[[int], RowSteps] | None = None
    """Given the rows of an update, what turns mean gradients into steps; see ``Plan.steps``."""
    keep_end: bool = False
    snapshots: bool = False
    by_rows: bool = False

    def __post_init__(self) -> None:
        kinds = {
            "model": (Model, "LinearModel() or MLP()"),
            "strategy": (Strategy, "AllReduce() or LocalSGD(8)"),
            "optimizer": (Optimizer, "SGD(0.1) or Adam()"),
        }
        for name, (kind, example) in kinds.items():
            value = getattr(self, name)
            if not isinstance(value, kind):
                article = "an" if name == "optimizer" else "a"
                raise TypeError(
                    f"{name}={value!r}: must be {article} {name} object such as {example}{hint_of_class(value)}"
                )
        if not isinstance(self.faults, list | tuple):
            raise TypeError(f"faults={self.faults!r}: must be a list such as [scaleml.faults.Slow(rank=1, factor=4)]")
        for name in ("epochs", "batch_size", "shards", "evaluations_an_epoch"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1):
                raise ValueError(f"{name}={value!r}: must be a positive integer")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int | np.integer) or not 0 <= self.seed < 2**32:
            raise ValueError(
                f"seed={self.seed!r}: must be an integer from 0 to 2**32 - 1; the same seed gives the same run"
            )


def hint_of_class(value: Any) -> str:
    """Return how to make an object of `value` if it is a class, else nothing."""
    return f"; {value.__name__} is a class: call it, {value.__name__}()" if isinstance(value, type) else ""


def check_names(function: str, known: Sequence[str], settings: Mapping[str, Any]) -> None:
    """Raise TypeError for a setting that is none of the ``known`` parameters of `function`, of which three are the model and its data."""
    for name in settings:
        if name not in known:
            raise TypeError(
                f"{function}() has no setting {name!r}.{guess(name, known)} Settings: {', '.join(known[3:])}"
            )


def live_settings(learning_rate: float | None, batch_size: int | None) -> dict[str, Any]:
    """Return what a run is told to change in mid-run, checked."""
    settings: dict[str, Any] = {}
    if learning_rate is not None:
        real = isinstance(learning_rate, Real) and not isinstance(learning_rate, bool)
        if not (real and 0 < learning_rate < np.inf):
            raise ValueError(f"learning_rate={learning_rate!r}: must be a positive number")
        settings["learning_rate"] = float(learning_rate)
    if batch_size is not None:
        if not (isinstance(batch_size, int) and batch_size >= 1):
            raise ValueError(
                f"batch_size={batch_size!r}: must be a positive integer, the rows of one step over all ranks"
            )
        settings["batch_size"] = batch_size
    return settings
