"""Class weights: how often each class occurs, and what its rows weigh for that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from scaleml.arrays import Array
from scaleml.data.labels import plain

_MOST: Final = 10


@dataclass(frozen=True)
class ClassTally:
    """How often each class occurs.

    Parameters
    ----------
    counts : (k,) array
        Rows of each class to train on.
    held : (k,) array or None
        Sum of the weights of each class' held-out rows.
    """

    counts: Array
    held: Array | None = None

    @property
    def largest_share(self) -> float | None:
        """The accuracy on the held-out rows of always saying the class that most rows to train on have; None without such rows.

        Examples
        --------
        >>> ClassTally(np.array([30, 70]), np.array([4.0, 6.0])).largest_share
        0.6
        """
        if self.held is None or not self.held.any():
            return None
        return float(self.held[int(np.argmax(self.counts))] / self.held.sum())


def count(codes: Array, classes: Array, weights: Array | None = None) -> Array:
    """Return how many rows, or how much weight, each class has, (k,), from their codes (n,)."""
    return np.bincount(codes.astype(np.int64), weights, len(classes)).astype(np.float64)


def class_weights(
    class_weight: str | Mapping[Any, float] | tuple[float, ...] | None, classes: Array | None, counts: Array | None
) -> Array | None:
    """Return what each class weighs, (k,), as scikit-learn's ``compute_class_weight``; None where there is nothing to weigh.

    Parameters
    ----------
    class_weight : "balanced", mapping, tuple or None
        ``"balanced"`` weighs a class by ``rows / (classes that occur * its rows)``; a mapping names labels, and others weigh 1; a tuple
        has been worked out already.
    classes : (k,) array or None
        The labels, sorted; None for numbers.
    counts : (k,) array or None
        Rows of each.

    Raises
    ------
    ValueError
        For numbers, for labels that are none of the classes, and for weights that are negative or all 0.

    Examples
    --------
    >>> class_weights("balanced", np.array(["no", "yes"]), np.array([30.0, 10.0])).round(3).tolist()
    [0.667, 2.0]
    >>> class_weights({"yes": 3}, np.array(["no", "yes"]), np.array([30.0, 10.0])).tolist()
    [1.0, 3.0]
    """
    if class_weight is None or isinstance(class_weight, tuple):
        return None
    if classes is None or counts is None:
        raise ValueError(f"class_weight={class_weight!r}, but this model learns numbers: weigh rows with sample_weight")
    if isinstance(class_weight, str):
        there = counts > 0
        return np.where(there, counts.sum() / (there.sum() * np.where(there, counts, 1)), 1.0)
    labels = [plain(label) for label in classes]
    unknown = [label for label in class_weight if label not in labels]
    if unknown:
        listed = ", ".join(repr(label) for label in labels[:_MOST])
        raise ValueError(
            f"class_weight names {unknown[0]!r}, which is none of the classes {listed}: use labels as y has them"
        )
    weights = np.array([float(class_weight.get(label, 1.0)) for label in labels])
    if (weights < 0).any() or not np.isfinite(weights).all() or not (weights * counts).any():
        raise ValueError(f"class_weight={dict(class_weight)!r}: must be numbers of at least 0, and not 0 for all rows")
    return weights
