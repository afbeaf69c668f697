"""Representation: settings as the call that makes them again, without what is at its default.

It stands beside `checks`, below everything: models, strategies, optimizers, codecs and faults show themselves by it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any

import numpy as np

__all__ = ["call_of"]


def call_of(settings: object) -> str:
    """Return the call that makes a dataclass again: its first setting, which says most, and all that differ from their defaults.

    Examples
    --------
    >>> from scaleml import SGD, LocalSGD, ParameterServer
    >>> SGD(0.1), SGD(0.1, momentum=0.9), ParameterServer("ssp", staleness=2)
    (SGD(learning_rate=0.1), SGD(learning_rate=0.1, momentum=0.9), ParameterServer('ssp', staleness=2))
    >>> LocalSGD(outer=SGD(0.7, momentum=0.9, nesterov=True))
    LocalSGD(period=8, outer=SGD(learning_rate=0.7, momentum=0.9, nesterov=True))
    """
    if not is_dataclass(settings):  # a class of a user's own that is none
        return object.__repr__(settings)
    shown = []
    for place, setting in enumerate(fields(settings)):
        value = getattr(settings, setting.name)
        if setting.init and (_differs(value, setting) or (place == 0 and value is not None)):
            is_plain = place == 0 and isinstance(value, str)
            shown.append(_literal(value) if is_plain else f"{setting.name}={_literal(value)}")
    return f"{type(settings).__name__}({', '.join(shown)})"


def _differs(value: object, setting: Field[Any]) -> bool:
    default = setting.default
    if default is MISSING:
        return setting.default_factory is MISSING or value != setting.default_factory()
    return bool(value != default)


def _literal(value: object) -> str:
    """Return what Python reads as the value: the repr of infinity is a name that nobody has."""
    if isinstance(value, float) and math.isinf(value):
        return f"float('{value}')"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_literal(key)}: {_literal(item)}" for key, item in value.items()) + "}"
    return repr(value.item() if isinstance(value, np.generic) else value)
