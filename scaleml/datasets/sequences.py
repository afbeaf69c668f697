"""Sequences of different lengths, such as the tokens of texts, as one array: padded, with their lengths beside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scaleml.checks import check_integer


def padded(sequences: Sequence[Any], length: int | None = None, value: float = 0) -> dict[str, NDArray[Any]]:
    """Return sequences as two inputs of a model: their items padded at the end to one length, and how many are theirs.

    Parameters
    ----------
    sequences : sequence of n arrays of shape (t_i, ...), or lists
        Token numbers, or numbers or vectors of any kind.
    length : int, optional
        T, to which longer ones are cut at their end. Default: that of the longest.
    value : number
        What the rest of each row is filled with.

    Returns
    -------
    dict
        ``"tokens"``: (n, T, ...), of the dtype that all items have in common; ``"lengths"``: int64 (n,), at most T.

    Raises
    ------
    ValueError
        For no sequences, for items that are not numbers of one shape, and for a value that their dtype does not have.

    Examples
    --------
    >>> found = padded([[5, 8, 2], [7]])
    >>> found["tokens"].tolist(), found["lengths"].tolist()
    ([[5, 8, 2], [7, 0, 0]], [3, 1])
    >>> padded([[5, 8, 2], [7]], length=2, value=-1)["tokens"].tolist()
    [[5, 8], [7, -1]]
    """
    if len(sequences) == 0:
        raise ValueError("sequences=[]: at least one is needed")
    rows = [np.asarray(sequence) for sequence in sequences]
    filled = [row for row in rows if row.size] or [np.zeros(0, np.int64)]
    shapes = {row.shape[1:] for row in filled if row.ndim}
    kinds = {row.dtype.kind for row in filled}
    if len(shapes) != 1 or not all(row.ndim for row in rows) or kinds - set("biuf"):
        what = next((row for row in filled if not row.ndim or row.dtype.kind not in "biuf"), filled[0])
        raise ValueError(
            f"sequences hold {'items of several shapes' if len(shapes) > 1 else repr(what.tolist())[:80]}: each must be a list or an "
            "array of numbers, or of vectors of one size; make token numbers of text first"
        )
    longest = max(len(row) for row in rows)
    wide = max(1, longest) if length is None else check_integer("length", length, 1, rule="a positive integer, or None")
    dtype = np.result_type(*{row.dtype for row in filled})
    if np.asarray(value).astype(dtype) != value:
        raise ValueError(
            f"value={value!r} is none that {dtype} has, which the sequences hold: pass another, or convert them"
        )
    tokens = np.full((len(rows), wide, *shapes.pop()), value, dtype)
    lengths = np.minimum([len(row) for row in rows], wide)
    for row, mine, count in zip(rows, tokens, lengths.tolist(), strict=True):
        mine[:count] = row[:count]
    return {"tokens": tokens, "lengths": lengths.astype(np.int64)}
