"""Batches of rows that are changed at random: a pure function of the seed, the row and the epoch, whichever rank has the row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, final

import numpy as np

from scaleml.arrays import Array, Matrix, is_sparse
from scaleml.data.batches import Batches, OpenShard, Schedule
from scaleml.data.row_seeds import drawn, row_seeds
from scaleml.data.shard_parts import ShardPart

Augment = Callable[[Array, Array], Array]
"""From rows and a seed for each to changed rows: `scaleml.models.augmentation.Augmentation`."""


@final
class AugmentedBatches(Batches):
    """The batches of one rank, augmented.

    A row is known by its place among all rows in the order in which shards hold them, one shard after the other. With the same shards that
    is the same row on any number of ranks; rows that came as arrays have the same places in any number of shards.

    Parameters
    ----------
    schedule, owned, shards
        As for `Batches`.
    augment : sequence of callables
        One after the other.
    seed : int
        Of the run.
    """

    def __init__(
        self,
        schedule: Schedule,
        owned: Sequence[int | ShardPart],
        shards: Sequence[OpenShard],
        augment: Sequence[Augment],
        seed: int,
    ) -> None:
        super().__init__(schedule, owned, shards)
        self._augment, self._seed = tuple(augment), seed
        self._firsts = np.cumsum([0, *schedule.sizes]).tolist()

    def take(self, consumed: int, count: int) -> tuple[Matrix, Array, Array | None, int]:
        """Return this rank's rows of a batch, changed as they are in this epoch; see `Batches.take`."""
        x, y, weights, rows = super().take(consumed, count)
        if rows:
            assert not is_sparse(x), "rows that are augmented are dense"
            x = augmented(x, row_seeds(self._seed, self.epoch, self._places(consumed, count)), self._augment)
        return x, y, weights, rows

    def _places(self, consumed: int, count: int) -> Array:
        """Return which of all rows those of a batch are."""
        return np.concatenate(
            [np.arange(*self.slice_of(part, consumed, count)) + self._firsts[part.shard] for part in self.parts]
        )


def augmented(x: Array, seeds: Array, augment: Sequence[Augment]) -> Array:
    """Return rows, changed by one augmentation after the other, each with random numbers of its own.

    Raises
    ------
    ValueError
        Where one changes their shape or dtype.
    """
    for number, each in enumerate(augment):
        changed = each(x, drawn(seeds, number))
        if changed.shape != x.shape or changed.dtype != x.dtype:
            raise ValueError(
                f"augment: {each!r} made rows of {changed.dtype} {changed.shape} of rows of {x.dtype} {x.shape}: it must keep both"
            )
        x = changed
    return x


def check_augmentations(augment: object, rows: Array) -> None:
    """Raise unless these are augmentations that such rows can have, which is tried.

    Parameters
    ----------
    augment : tuple
        As a model has it.
    rows : (n, ...) array
        Like those to train on.
    """
    given: Any = augment
    if not isinstance(given, tuple | list) or not all(callable(each) and not isinstance(each, type) for each in given):
        raise TypeError(
            f"augment={augment!r}: must be a tuple of augmentations such as (RandomCrop(4), RandomFlip()) of scaleml.data.augment"
        )
    augmented(rows, row_seeds(0, 0, np.arange(len(rows))), given)
