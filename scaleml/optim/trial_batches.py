"""Trial batches: what the batches of weighted rows will be like, from a sample, before a run takes its first step."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from scaleml.arrays import Array

__all__ = ["rare_rows", "weighted_batches"]

_RARE: Final = 0.05
"""Share of the batches up to which what is in them is rare."""


def rare_rows(weights: Array, counts: Array, share: float) -> tuple[Array, Array]:
    """Return which rows of a sample are heavier than the others and in few of the batches, from the lightest on; and the others.

    ``share`` is that of a batch in all rows.
    """
    order = np.argsort(weights)
    often = np.flatnonzero(np.cumsum(counts[order][::-1]) * share > _RARE)
    if not share or not len(often):
        return order[:0], order
    bound = weights[order[-1 - often[0]]]
    return order[weights[order] > bound], order[weights[order] <= bound]


def weighted_batches(
    weights: Array, counts: Array, batch: int, epoch: int, trials: int, random: np.random.Generator
) -> list[Array]:
    """Return rows of a sample as batches have them: some usual batches, and one that chance makes heavier than all others.

    Of rows that weigh nothing a batch has some, too: they are not among these.
    """
    share, size = counts / counts.sum(), len(weights)
    usual = batch * counts.sum() / epoch
    count = min(batch, max(1, round(usual)))
    parts = [random.choice(size, count, p=share) for _ in range(trials)]
    heavy = weights >= 0.5 * weights.max()
    expected = batch * counts[heavy].sum() / epoch
    most = min(batch, math.ceil(expected + 4 * math.sqrt(expected) + 1), int(counts[heavy].sum()))
    shuffled = random.permutation(size)
    heaviest = shuffled[np.argsort(-weights[shuffled], kind="stable")][:most]
    return [*parts, np.concatenate([heaviest, random.choice(size, max(0, count - most), p=share)])]
