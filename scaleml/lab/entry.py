"""Entries: text fields that take what is typed as it is, and refuse in words what breaks their rule; nothing is altered."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar, final

import ipywidgets as widgets
import traitlets

T = TypeVar("T")
WIDTHS = ("short", "medium", "long")
REFUSED = "scaleml-refused"


@final
class Entry(widgets.Text):
    """A text field that knows what its text means.

    Browsers' fields for numbers, and bounded widgets, make 15 of "1.5" and 1 of 0 without a word.

    Parameters
    ----------
    parse : callable
        The text, stripped -> the value; raises ValueError with the name, the text and the rule.
    value : object
        Shown as its ``str``.
    width : {"short", "medium", "long"}
        Of the field.

    Examples
    --------
    >>> entry = Entry(whole("epochs"), 60)
    >>> entry.read()
    60
    >>> entry.value = "1.5"
    >>> entry.problem
    "epochs '1.5': must be a whole number, 1 or more"
    """

    value = traitlets.CUnicode("").tag(sync=True)

    def __init__(self, parse: Callable[[str], Any], value: object = "", *, width: str = "short", **more: Any) -> None:
        self._parse = parse
        more.setdefault("layout", widgets.Layout(width="auto", margin="0 2px"))
        # On leaving the field, not at every key: half a number breaks every rule.
        super().__init__(value=value, continuous_update=False, **more)
        self.add_class(f"scaleml-{width}")
        self.observe(self._judge, "value")

    @property
    def problem(self) -> str:
        """Why what it says is refused; empty if it is not."""
        try:
            self.read()
        except ValueError as error:
            return str(error)
        return ""

    def read(self) -> Any:
        """Return what it says; raises ValueError for what breaks its rule."""
        return self._parse(self.value.strip())

    def _judge(self, _: object) -> None:
        (self.add_class if self.problem else self.remove_class)(REFUSED)


def whole(name: str, least: int | None = 1) -> Callable[[str], int]:
    """Return what reads a whole number, of at least so much.

    >>> whole("batch")("256")
    256
    """
    rule = "must be a whole number" + ("" if least is None else f", {least} or more")

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise ValueError(f"{name} {text!r}: {rule}") from None
        if least is not None and value < least:
            raise ValueError(f"{name} {text}: {rule}")
        return value

    return parse


def positive(name: str) -> Callable[[str], float]:
    """Return what reads a positive number.

    >>> positive("learning rate")("0.1")
    0.1
    """
    read = real(name, "must be a positive number")

    def parse(text: str) -> float:
        value = read(text)
        if not 0 < value < math.inf:
            raise ValueError(f"{name} {text}: must be a positive number")
        return value

    return parse


def real(name: str, rule: str = "must be a number") -> Callable[[str], float]:
    """Return what reads a number; infinity is one, ``nan`` is none.

    >>> real("factor")("2.5")
    2.5
    """

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if math.isnan(value):
            raise ValueError(f"{name} {text!r}: {rule}")
        return value

    return parse


def several(
    name: str, rule: str = "must be whole numbers such as 256, 128; empty for none"
) -> Callable[[str], tuple[int, ...]]:
    """Return what reads whole numbers with commas between them.

    >>> several("hidden layers")("256, 128")
    (256, 128)
    """

    def parse(text: str) -> tuple[int, ...]:
        try:
            return tuple(int(part) for part in text.replace(",", " ").split())
        except ValueError:
            raise ValueError(f"{name} {text!r}: {rule}") from None

    return parse


def maybe(parse: Callable[[str], T]) -> Callable[[str], T | None]:
    """Return what reads the same, or None where nothing is said.

    >>> maybe(positive("target loss"))("") is None
    True
    """

    def read(text: str) -> T | None:
        return parse(text) if text else None

    return read


def shown(value: object) -> str:
    """Return how an entry says a value.

    >>> shown(0.1), shown(None), shown((2, 3)), shown(1e6)
    ('0.1', '', '2, 3', '1e+06')
    """
    if isinstance(value, tuple | list):
        return ", ".join(map(str, value))
    if isinstance(value, float):
        return f"{value:.12g}" if value < 1e6 else f"{value:g}"
    return "" if value is None else str(value)
