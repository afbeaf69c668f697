"""Formatting of numbers as people read them: the same in tables, sentences, reports and terminals."""

from __future__ import annotations

import math


def seconds(value: float) -> str:
    """Seconds with a unit that suits them.

    >>> seconds(0.00042), seconds(3.14159), seconds(41.3), seconds(5400), seconds(float("nan"))
    ('420 us', '3.14 s', '41.3 s', '1 h 30 min', '-')
    """
    if not math.isfinite(value):
        return "-"
    if value == 0:
        return "0 s"
    if abs(value) < 0.9995e-3:
        return f"{value * 1e6:.3g} us"
    if abs(value) < 0.9995:
        return f"{value * 1e3:.3g} ms"
    if abs(value) < 99.95:
        return f"{value:.3g} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def roughly(value: float) -> str:
    """Seconds as precisely as a guess deserves.

    >>> roughly(3.27), roughly(49.4), roughly(1099.0), roughly(62_880.0)
    ('3 s', '49 s', '18 min', '17.5 h')
    """
    if value < 99.5:
        return f"{value:.0f} s"
    return f"{value / 60:.0f} min" if value < 5970 else f"{value / 3600:.1f} h"


def count(value: float) -> str:
    """A count to three digits.

    >>> count(812), count(15321), count(2_500_000), count(0)
    ('812', '15.3 k', '2.5 M', '0')
    """
    if not math.isfinite(value):
        return "-"
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= 0.9995 * size and abs(value) >= 9_999.5:
            return f"{value / size:.3g} {unit}"
    return f"{value:,.0f}" if abs(value) >= 99.5 or value == int(value) else f"{value:.3g}"


def size(value: float) -> str:
    """Bytes in decimal units.

    >>> size(0), size(804), size(1_204_000), size(float("nan"))
    ('0 B', '804 B', '1.2 MB', '-')
    """
    if not math.isfinite(value):
        return "-"
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if abs(value) >= 0.9995 * scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value:.0f} B"


def percent(share: float) -> str:
    """A share as a whole percentage.

    >>> percent(0.834), percent(0.004), percent(0), percent(float("nan"))
    ('83%', '<1%', '0%', '-')
    """
    if not math.isfinite(share):
        return "-"
    return "<1%" if 0 < share < 0.005 else f"{100 * share:.0f}%"


def factor(ratio: float) -> str:
    """How many times.

    >>> factor(1.834), factor(0.5), factor(23.6), factor(float("nan"))
    ('1.83x', '0.50x', '23.6x', '-')
    """
    if not math.isfinite(ratio):
        return "-"
    return f"{ratio:.2f}x" if ratio < 10 else f"{ratio:.3g}x"


def number(value: float) -> str:
    """A loss or a score to four digits.

    >>> number(0.693147), number(0.02), number(float("nan"))
    ('0.6931', '0.02', '-')
    """
    return "-" if math.isnan(value) else f"{value:.4g}"


def listing(parts: list[str]) -> str:
    """Words as a sentence lists them.

    >>> listing(["one", "two", "three"])
    'one, two and three'
    """
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
