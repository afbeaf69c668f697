"""Objects of this package as names and fields, and back: nothing that a rank receives from a rank is ever unpickled."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from importlib import import_module
from typing import Any, Final

from scaleml.faults import Fault
from scaleml.optim import Optimizer
from scaleml.strategies import Strategy

_PACKAGES: Final = ("strategies", "optim", "compression", "faults")
"""Where the classes are found that a description may name."""

Description = dict[str, Any]
"""What JSON can say of an object: ``package``, ``name`` and ``fields``."""


def is_ours(thing: object) -> bool:
    """Whether an object's class is one of this package that a running rank may be told of by its name."""
    package, *rest = type(thing).__module__.split(".")
    return package == "scaleml" and rest[:1] != [] and rest[0] in _PACKAGES and is_dataclass(thing)


def describe(thing: object) -> Description:
    """Return a strategy, a fault or an optimizer, and the codecs and optimizers in it, as names of classes and their fields.

    Raises
    ------
    ValueError
        For an object of a class that is not this package's: ranks rebuild it by its name.

    Examples
    --------
    >>> from scaleml import Serial
    >>> describe(Serial(threads=2))
    {'package': 'strategies', 'name': 'Serial', 'fields': {'threads': 2}}
    """
    if not is_ours(thing) or not is_dataclass(thing):
        raise ValueError(f"{thing!r} is of no class of scaleml's own, which a running rank could find by its name")
    kind = type(thing)
    settings = {setting.name: getattr(thing, setting.name) for setting in fields(thing) if setting.init}
    return {
        "package": kind.__module__.split(".")[1],
        "name": kind.__name__,
        "fields": {name: describe(value) if is_dataclass(value) else value for name, value in settings.items()},
    }


def rebuild(description: Description) -> object:
    """Make the object that `describe` described; nothing but dataclasses of this package."""
    assert description["package"] in _PACKAGES
    home = import_module(f"scaleml.{description['package']}")
    assert description["name"] in home.__all__
    kind = getattr(home, description["name"])
    made: object = kind(**{name: _value(value) for name, value in description["fields"].items()})
    return made


def _value(value: object) -> object:
    if isinstance(value, dict):
        return rebuild(value)
    return tuple(value) if isinstance(value, list) else value  # JSON knows no tuples


def strategy_from(description: Description) -> Strategy:
    """Rebuild a strategy."""
    made = rebuild(description)
    assert isinstance(made, Strategy)
    return made


def fault_from(description: Description) -> Fault:
    """Rebuild a fault."""
    made = rebuild(description)
    assert isinstance(made, Fault)
    return made


def optimizer_from(description: Description) -> Optimizer:
    """Rebuild an optimizer."""
    made = rebuild(description)
    assert isinstance(made, Optimizer)
    return made
