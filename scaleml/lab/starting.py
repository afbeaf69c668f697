"""Starting points: the schedules that the lab offers, and the optimizer that it starts with on each data set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Final, Literal

from scaleml.optim import SGD, Adam, Averaged, CosineAnnealing, LinearDecay, Optimizer, Schedule, Warmup

DEFAULT_OPTIMIZER: Final = SGD(0.1)
OPTIMIZERS: Final[Mapping[str, Optimizer]] = {"docstrings": Adam(0.003)}
"""For data of which plain SGD learns next to nothing in a few epochs: a word's embedding has a gradient in few of the batches."""
SCHEDULES: Final[Mapping[str, Schedule | Literal["constant"]]] = {
    "constant": "constant",
    "cosine": CosineAnnealing(),
    "linear": LinearDecay(),
    "warm-up": Warmup(),
    "warm-up, cosine": Warmup(then=CosineAnnealing()),
    "warm-up, linear": Warmup(then=LinearDecay()),
}
OWN: Final = "its own"
"""What the menu of schedules says of one that it does not offer."""


def scheduled(optimizer: Optimizer, schedule: Schedule | Literal["constant"]) -> Optimizer:
    """Return an optimizer with another schedule, also inside one that averages; as it is, if it has none."""
    if isinstance(optimizer, Averaged):
        return replace(optimizer, optimizer=scheduled(optimizer.optimizer, schedule))
    has_one = any(field.name == "schedule" for field in fields(optimizer))  # type: ignore[arg-type]  # all are dataclasses
    return replace(optimizer, schedule=schedule) if has_one else optimizer  # type: ignore[type-var]
