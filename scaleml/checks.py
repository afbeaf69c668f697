"""Checks of settings: numbers, switches, one of several options. Each error says the value, the rule and the remedy; hints do, too.

It stands beside `arrays`, below everything, so that a rule has one wording wherever it is checked.
"""

from __future__ import annotations

import math
import numbers
import sys
import warnings
from collections.abc import Sequence

__all__ = ["check_flag", "check_integer", "check_number", "check_option", "guess", "hint"]


def check_option(name: str, value: object, options: Sequence[object]) -> None:
    """Raise ValueError unless `value` is one of `options`, naming the nearest if there is one.

    Examples
    --------
    >>> check_option("penalty", "L2", ("l1", "l2", None))
    Traceback (most recent call last):
    ValueError: penalty='L2': must be one of 'l1', 'l2', None. Did you mean 'l2'?
    """
    if not any(value is option or (isinstance(value, str) and value == option) for option in options):
        listed = ", ".join(repr(option) for option in options)
        raise ValueError(f"{name}={value!r}: must be one of {listed}.{guess(value, options)}")


def check_flag(name: str, value: object) -> bool:
    """Return `value`, or raise ValueError unless it is True or False."""
    if not isinstance(value, bool):
        raise ValueError(f"{name}={value!r}: must be True or False; change {name}.")
    return value


def check_number(
    name: str,
    value: object,
    low: float = -math.inf,
    high: float = math.inf,
    *,
    open_low: bool = False,
    open_high: bool = False,
    finite: bool = True,
    rule: str = "",
) -> float:
    """Return `value` as a float, or raise ValueError unless it is a number from `low` to `high`.

    Parameters
    ----------
    name : str
        What the error calls it.
    value : object
        A real number of any type, but no bool.
    low, high : float
        The least and the most.
    open_low, open_high : bool
        Whether `low`, or `high`, is itself too little, or too much.
    finite : bool
        Whether infinity, which NaN never passes for, is refused.
    rule : str
        The rule and the remedy, for the error; by default made of the limits.

    Examples
    --------
    >>> check_number("momentum", 1, 0, 1, open_high=True)
    Traceback (most recent call last):
    ValueError: momentum=1: must be a finite number at least 0 and below 1; change momentum.
    """
    number = float(value) if isinstance(value, numbers.Real) and not isinstance(value, bool) else math.nan
    inside = low <= number <= high and not (open_low and number == low) and not (open_high and number == high)
    if not inside or (finite and math.isinf(number)):
        raise ValueError(f"{name}={value!r}: must be {rule or _rule(name, low, high, open_low, open_high, finite)}")
    return number


def _rule(name: str, low: float, high: float, open_low: bool, open_high: bool, finite: bool) -> str:
    limits = []
    if not math.isinf(low):
        limits.append(f"greater than {low:g}" if open_low else f"at least {low:g}")
    if not math.isinf(high):
        limits.append(f"below {high:g}" if open_high else f"at most {high:g}")
    words = ["a finite number" if finite else "a number", *([" and ".join(limits)] if limits else [])]
    return f"{' '.join(words)}; change {name}."


def check_integer(name: str, value: object, low: int = 0, high: float = math.inf, *, rule: str = "") -> int:
    """Return `value` as an int, or raise ValueError unless it is an integer from `low` to `high`.

    Parameters
    ----------
    name : str
        What the error calls it.
    value : object
        An integer of any type, but no bool.
    low, high : int
        The least and the most.
    rule : str
        The rule and the remedy, for the error; by default made of the limits.

    Examples
    --------
    >>> check_integer("epochs", 2.5, 1)
    Traceback (most recent call last):
    ValueError: epochs=2.5: must be an integer of at least 1; change epochs.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or not low <= int(value) <= high:
        limits = f"of at least {low}" if math.isinf(high) else f"from {low} to {high}"
        raise ValueError(f"{name}={value!r}: must be {rule or f'an integer {limits}; change {name}.'}")
    return int(value)


def guess(value: object, options: Sequence[object]) -> str:
    """Return `` Did you mean 'x'?`` for an option that looks like `value`, else nothing."""
    from difflib import get_close_matches

    names = [option for option in options if isinstance(option, str)]
    near = get_close_matches(value, names, 1, 0.5) if isinstance(value, str) else []
    return f" Did you mean {near[0]!r}?" if near else ""


def hint(message: str) -> None:
    """Warn of what is allowed, but hardly meant: with a UserWarning at the user's line, which Python shows once."""
    frame = sys._getframe(1)
    ours = ("scaleml", "contextlib")  # which stands between, where a function is decorated by a context
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in ours:
        frame = frame.f_back
    warnings.warn_explicit(
        message,
        UserWarning,
        frame.f_code.co_filename,
        frame.f_lineno,
        module=frame.f_globals.get("__name__", "scaleml"),
        registry=frame.f_globals.setdefault("__warningregistry__", {}),
    )
