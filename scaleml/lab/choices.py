"""Choices for menus: the concrete dataclasses below a base class, found as they are, without a list kept here."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from inspect import isabstract
from typing import Any


def offered(base: type) -> list[type]:
    """Return the subclasses of `base` that its package (or its module, if that is one file) exports, in that order.

    >>> from scaleml.strategies import Strategy
    >>> {"AllReduce", "LocalSGD", "Serial"} <= {kind.__name__ for kind in offered(Strategy)}
    True
    """
    module = sys.modules[base.__module__]
    package = sys.modules.get(base.__module__.rpartition(".")[0])
    home = package if getattr(package, base.__name__, None) is base else module
    exported = (getattr(home, name) for name in getattr(home, "__all__", vars(home)))
    return [kind for kind in exported if _is_choice(kind, base)]


def _is_choice(kind: Any, base: type) -> bool:
    return isinstance(kind, type) and issubclass(kind, base) and is_dataclass(kind) and not isabstract(kind)


def settings(kind: type) -> Iterator[Any]:
    """Yield the fields that its constructor takes."""
    return (field for field in fields(kind) if field.init)


def default(field: Any) -> Any:
    """Return a field's default, or ``MISSING``."""
    return field.default if field.default_factory is MISSING else field.default_factory()


def startable(kind: type) -> bool:
    """Whether it can be made without any argument.

    >>> from scaleml.optim import SGD, Averaged
    >>> startable(SGD), startable(Averaged)
    (True, False)
    """
    return all(default(field) is not MISSING for field in settings(kind))
