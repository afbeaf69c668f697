"""Settings that all optimizers share, checked and made plain."""

from __future__ import annotations

import math
from typing import Final

from scaleml.checks import check_integer, check_number, check_option
from scaleml.optim.base import Optimizer
from scaleml.optim.groups import check_groups, check_patterns
from scaleml.optim.schedules import Schedule

SCHEDULES: Final = ("constant", "optimal", "invscaling", "adaptive")


def set_unused(optimizer: Optimizer, **fields: float | str | None) -> None:
    """Set what this optimizer has no setting for: a constant schedule, no clipping, and what else is given."""
    unused: dict[str, float | str | None] = {"schedule": "constant", "power_t": 0.5, "alpha": 1e-4, "clip_norm": None}
    for name, value in (unused | {"n_iter_no_change": 1} | fields).items():
        object.__setattr__(optimizer, name, value)


def check_settings(optimizer: Optimizer) -> None:
    """Check the settings that all optimizers share, and make them plain numbers, so that the repr recreates them."""
    if not isinstance(optimizer.schedule, Schedule):
        check_option("schedule", optimizer.schedule, SCHEDULES)
    for name in ("learning_rate", "alpha"):
        set_number(optimizer, name, 0, open_low=True)
    set_number(optimizer, "power_t")
    set_number(optimizer, "tol", 0)
    if optimizer.clip_norm is not None:
        set_number(optimizer, "clip_norm", 0, open_low=True)
    count = check_integer("n_iter_no_change", optimizer.n_iter_no_change, 1)
    object.__setattr__(optimizer, "n_iter_no_change", count)
    set_number(optimizer, "weight_decay", 0)
    object.__setattr__(optimizer, "groups", check_groups(optimizer.groups))
    object.__setattr__(optimizer, "no_decay", check_patterns("no_decay", optimizer.no_decay))


def set_number(
    optimizer: Optimizer, name: str, low: float = -math.inf, below: float = math.inf, *, open_low: bool = False
) -> None:
    """Make a setting a float, or raise ValueError unless it is finite and lies in ``[low, below)``."""
    value = check_number(name, getattr(optimizer, name), low, below, open_low=open_low, open_high=True)
    object.__setattr__(optimizer, name, value)
