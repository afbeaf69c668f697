"""Checks of settings: each error says the value, the rule and the remedy."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import Any

__all__ = ["check_integer", "check_number", "check_option", "guess"]


def check_option(name: str, value: Any, options: Sequence[Any]) -> None:
    """Raise ValueError unless `value` is one of `options`, naming the nearest if there is one."""
    if not any(value is option or (isinstance(value, str) and value == option) for option in options):
        listed = ", ".join(repr(option) for option in options)
        raise ValueError(f"{name}={value!r}: must be one of {listed}.{guess(value, options)}")


def check_number(name: str, value: Any, low: float, high: float = math.inf, *, open_low: bool = False) -> float:
    """Return `value` as a float, or raise ValueError unless it is finite and within ``[low, high]``."""
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not real or not math.isfinite(value) or not low <= value <= high or (open_low and value == low):
        above = f"greater than {low:g}" if open_low else f"at least {low:g}"
        upper = "" if math.isinf(high) else f" and at most {high:g}"
        raise ValueError(f"{name}={value!r}: must be a finite number {above}{upper}; change {name}.")
    return float(value)


def check_integer(name: str, value: Any, low: int) -> int:
    """Return `value` as an int, or raise ValueError unless it is an integer of at least `low`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < low:
        raise ValueError(f"{name}={value!r}: must be an integer of at least {low}; change {name}.")
    return int(value)


def guess(value: Any, options: Sequence[Any]) -> str:
    """Return `` Did you mean 'x'?`` for an option that looks like `value`, else nothing."""
    from difflib import get_close_matches

    names = [option for option in options if isinstance(option, str)]
    near = get_close_matches(value, names, 1, 0.5) if isinstance(value, str) else []
    return f" Did you mean {near[0]!r}?" if near else ""
