"""The dtype of a row: a plain one, one with a shape, or a record with an aligned field for each of several inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from scaleml.arrays import Array

Row = np.dtype[Any]
"""Of one row."""
ALONE: Final = ""
"""The name of an input that is the only one."""


def row_of(x: Array, dtype: str) -> Row:
    """Return what the rows of an array become: floats in ``dtype``, others in their own.

    Examples
    --------
    >>> import numpy as np
    >>> row_of(np.zeros((2, 3)), "float32"), row_of(np.zeros(2, "int64"), "float32")
    (dtype(('<f4', (3,))), dtype('int64'))
    """
    kind = np.dtype(dtype) if x.dtype.kind == "f" else x.dtype.newbyteorder("=")
    return np.dtype((kind, x.shape[1:])) if x.ndim > 1 else kind


def record_of(rows: Mapping[str, Row]) -> Row:
    """Return the record with a field for each input, each aligned."""
    return np.dtype(list(rows.items()), align=True)


def is_several(row: Row) -> bool:
    """Whether rows are records of several inputs."""
    return row.names is not None


def inputs_of(row: Row) -> dict[str, Row]:
    """Return the rows of each input, by its name, which is empty for one that stands for itself."""
    return {ALONE: row} if row.names is None else {name: row[name] for name in row.names}


def items_of(row: Row) -> int:
    """Return how many numbers a row has.

    Examples
    --------
    >>> items_of(np.dtype(("uint8", (3, 2)))), items_of(record_of({"a": np.dtype("f4"), "b": np.dtype(("i8", (5,)))}))
    (6, 6)
    """
    return sum(int(np.prod(each.shape, dtype=np.int64)) for each in inputs_of(row).values())


def in_words(row: Row) -> str:
    """Return a row's dtypes and shapes in words.

    Examples
    --------
    >>> in_words(np.dtype(("uint8", (3, 2)))), in_words(record_of({"a": np.dtype("f4"), "b": np.dtype(("i8", (5,)))}))
    ('uint8 (3, 2)', 'a: float32, b: int64 (5,)')
    """
    return ", ".join(
        (f"{name}: " if name else "") + each.base.name + (f" {each.shape}" if each.shape else "")
        for name, each in inputs_of(row).items()
    )


def refuse_other_row(own: Row, row: Row, name: str, known: str, first: int = 0) -> None:
    """Raise ValueError unless rows can become others by converting numbers; see `Tensors.fitted`."""
    mine, wanted = inputs_of(own), inputs_of(row)
    alike = mine.keys() == wanted.keys() and all(mine[key].shape == wanted[key].shape for key in mine)
    if alike and not any(mine[key].base.kind == "f" != wanted[key].base.kind for key in mine):
        return
    remedy = f"pass rows of {in_words(row)}"
    if alike:
        kinds = ", ".join(dict.fromkeys(each.base.name for each in wanted.values()))
        remedy = f"convert them, .astype({kinds!r}), if they hold whole numbers"
    elif not is_several(own) and not is_several(row) and row.shape and own.shape == row.shape[1:]:
        remedy = f"of one row alone pass {name}[None]"
    raise ValueError(f"{name} has rows of {in_words(own)}, but {known} rows of {in_words(row)}: {remedy}")
