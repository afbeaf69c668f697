"""Inputs: what a module is given of rows of X, of one input or of several, and rows to try a module on."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np

from scaleml.arrays import Array
from scaleml.models.base import Signature

__all__ = ["Fields", "Kind", "described", "fields_of", "kind_of", "trial_rows"]

Kind = Literal["float", "integer", "bool"]
"""What a module gets: numbers in the dtype of its parameters, whole ones (int64), or truth values."""


class Fields(NamedTuple):
    """The inputs of a module.

    Parameters
    ----------
    names : tuple of str
        Of the fields of a row; none where X is one array.
    by_name : bool
        Whether the module is given them as keyword arguments; else in their order.
    """

    names: tuple[str, ...]
    by_name: bool


def fields_of(row: np.dtype[Any] | None) -> Fields:
    """Return the inputs that a row has: several where it is a record, by place where they are numbered.

    Examples
    --------
    >>> fields_of(np.dtype([("0", "f4"), ("1", "i8")])), fields_of(np.dtype("f4"))
    (Fields(names=('0', '1'), by_name=False), Fields(names=(), by_name=False))
    """
    names = () if row is None or row.names is None else row.names
    return Fields(names, names != tuple(str(place) for place in range(len(names))))


def kind_of(dtype: np.dtype[Any]) -> Kind:
    """Return what a module gets of an array: floats of floats and of bytes, which are pixels; whole numbers of other integers.

    Raises
    ------
    ValueError
        For what is no number.
    """
    if dtype.kind == "b":
        return "bool"
    if dtype.kind == "f" or dtype == np.uint8:
        return "float"
    if dtype.kind in "iu":
        return "integer"
    raise ValueError(
        f"X has dtype {dtype}: modules take numbers and truth values; encode it first, such as text as token numbers."
    )


def trial_rows(signature: Signature, rows: int) -> Array:
    """Return rows like those of X to try a module on: random numbers, ones for whole numbers (a token, a length), False.

    Examples
    --------
    >>> trial_rows(Signature(2, row=np.dtype(("int64", (2,)))), 1).tolist()
    [[1, 1]]
    """
    random = np.random.default_rng(0)
    if signature.row is None:
        return random.standard_normal((rows, signature.n_features)).astype(signature.dtype)
    x = np.zeros(rows, signature.row)
    for part in [x[name] for name in x.dtype.names] if x.dtype.names else [x]:
        if part.dtype.kind == "f":
            part[...] = random.standard_normal(part.shape)
        elif part.dtype.kind in "iu":
            part[...] = 1
    return x


def described(x: Array) -> str:
    """Return in words what a row of X is.

    Examples
    --------
    >>> described(np.zeros((2, 3, 8, 8), "u1"))
    'shape (3, 8, 8), dtype uint8'
    """
    if x.dtype.names is None:
        return f"shape {x.shape[1:]}, dtype {x.dtype}"
    return "; ".join(f"{name!r} of {described(x[name])}" for name in x.dtype.names)
