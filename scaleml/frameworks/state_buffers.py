"""State that a framework keeps as arrays, such as running statistics, as the two vectors of buffers, and back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from scaleml.arrays import Array
from scaleml.models.buffers import Buffers

__all__ = ["from_buffers", "to_buffers"]


def to_buffers(state: Iterable[Any], dtype: np.dtype[Any]) -> Buffers:
    """Return arrays as buffers: floats in this dtype, and whole numbers and truth values, each in their order.

    Examples
    --------
    >>> to_buffers([np.ones(2), np.array(3), np.array([0.5])], np.dtype("f4"))
    Buffers(values=array([1. , 1. , 0.5], dtype=float32), counts=array([3]))
    """
    arrays = [np.asarray(one) for one in state]
    parts = {kind: [one.ravel() for one in arrays if _is_float(one) is kind] for kind in (True, False)}
    values = np.concatenate([np.empty(0, dtype), *parts[True]], dtype=dtype)
    return Buffers(values, np.concatenate([np.empty(0, np.int64), *parts[False]], dtype=np.int64, casting="unsafe"))


def from_buffers(buffers: Buffers, state: Iterable[Any]) -> list[Array]:
    """Return copies of buffers as arrays that are like those of a state."""
    rest, own = {True: buffers.values, False: buffers.counts}, []
    for one in state:
        is_float = _is_float(one)
        part, rest[is_float] = np.split(rest[is_float], [one.size])
        own.append(part.reshape(one.shape).astype(one.dtype))
    return own


def _is_float(one: Any) -> bool:
    return bool(np.issubdtype(one.dtype, np.floating))
