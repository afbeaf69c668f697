"""Buffers: numbers of a model that are not trained but follow from the batches that it has seen, such as BatchNorm's running statistics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

import numpy as np

from scaleml.arrays import Array

__all__ = ["BUFFER_RULES", "BufferRule", "Buffers"]

BufferRule = Literal["average", "rank0", "local"]
"""What ranks agree on: the mean of theirs, those of rank 0, or nothing, so that each keeps its own."""
BUFFER_RULES: tuple[BufferRule, ...] = ("average", "rank0", "local")


@final
@dataclass(frozen=True, eq=False)
class Buffers:
    """The buffers of a model at some moment: two vectors, which nobody writes to.

    Parameters
    ----------
    values : (b,) array of floats
        Such as running means and variances.
    counts : (c,) array of int64
        Such as how many batches were seen.

    Examples
    --------
    >>> two = [Buffers(np.array([1.0, -np.inf]), np.array([3])), Buffers(np.array([2.0, -np.inf]), np.array([5]))]
    >>> Buffers.mean([one.values for one in two], [one.counts for one in two])
    Buffers(values=array([ 1.5, -inf]), counts=array([5]))
    """

    values: Array
    counts: Array

    def __len__(self) -> int:
        return len(self.values) + len(self.counts)

    @classmethod
    def mean(cls, values: Sequence[Array] | Array, counts: Sequence[Array] | Array) -> Buffers:
        """Return the mean of several ranks' values (ranks, b), and the largest of their counts (ranks, c).

        What is the same on all ranks, such as a mask of infinities, stays so to the bit.
        """
        rows = np.asarray(values)
        first = rows[0].astype(np.float64)
        apart = np.subtract(rows, first, out=np.zeros(rows.shape), where=rows != first)
        return cls((first + apart.mean(0)).astype(rows.dtype), np.asarray(counts).max(0))

    def are_as_finite_as(self, others: Buffers) -> bool:
        """Whether there are finite values wherever the others have some."""
        return bool(np.isfinite(self.values[np.isfinite(others.values)]).all())
