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
    """Return a strategy, a fault or an optimizer, and the codecs, optimizers, schedules and groups in it, as classes' names and fields.

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
        "fields": {name: _described(value) for name, value in settings.items()},
    }


def _described(value: object) -> object:
    if isinstance(value, tuple):
        return [_described(item) for item in value]
    return describe(value) if is_dataclass(value) else value


def rebuild(description: Description) -> object:
    """Make the object that `describe` described; nothing but dataclasses of this package.

    Raises
    ------
    ValueError
        For a description of anything else, whoever sent it.
    """
    package, name = description["package"], description["name"]
    if package not in _PACKAGES:
        raise ValueError(
            f"{package!r} is none of the packages whose objects are rebuilt by name: {', '.join(_PACKAGES)}"
        )
    home = import_module(f"scaleml.{package}")
    kind = getattr(home, name) if name in home.__all__ else None
    if not isinstance(kind, type) or not is_dataclass(kind):
        raise ValueError(f"{name!r} is none of the classes of scaleml.{package} that are rebuilt by name")
    made: object = kind(**{field: _value(value) for field, value in description["fields"].items()})
    return made


def _value(value: object) -> object:
    if isinstance(value, dict):
        return rebuild(value)
    return tuple(map(_value, value)) if isinstance(value, list | tuple) else value  # JSON knows no tuples


def strategy_from(description: Description) -> Strategy:
    """Rebuild a strategy; ValueError for anything else."""
    made = rebuild(description)
    if not isinstance(made, Strategy):
        raise _is_no(made, "strategy")
    return made


def fault_from(description: Description) -> Fault:
    """Rebuild a fault; ValueError for anything else."""
    made = rebuild(description)
    if not isinstance(made, Fault):
        raise _is_no(made, "fault")
    return made


def optimizer_from(description: Description) -> Optimizer:
    """Rebuild an optimizer; ValueError for anything else."""
    made = rebuild(description)
    if not isinstance(made, Optimizer):
        raise _is_no(made, "optimizer")
    return made


def _is_no(made: object, kind: str) -> ValueError:
    return ValueError(f"{made!r} is no {kind}")
