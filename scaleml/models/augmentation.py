"""Augmentations: how rows to train on are changed at random each time that they come, the same way for the same seed, row and epoch."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from scaleml.arrays import Array


@runtime_checkable
class Augmentation(Protocol):
    """Changes rows of X at random; `scaleml.data.augment` has some for images.

    All that is random comes from the seeds, so that a row is the same in an epoch whichever rank has it.
    """

    def __call__(self, x: Array, seeds: Array, /) -> Array:
        """Return changed rows.

        Parameters
        ----------
        x : (n, ...) array
            Rows of X, as the model gets them; not to be written to.
        seeds : (n,) uint64 array
            A random number for each row, other ones in each epoch and for each augmentation.

        Returns
        -------
        (n, ...) array
            Of the same shape and dtype.
        """
