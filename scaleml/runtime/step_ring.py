"""The step ring: what is to be known of each step of a GPU, kept there until somebody looks at all of it at once."""

from __future__ import annotations

from types import ModuleType
from typing import Any, Final, NamedTuple, final

import numpy as np

from scaleml.arrays import Array, to_numpy

STEPS: Final = 1024
"""Steps that it holds."""


class Step(NamedTuple):
    """One step.

    Parameters
    ----------
    number : int
        Which.
    loss, weight, rows : float
        The tail of the gradient that was applied.
    squares : float
        Its squared norm.
    own_loss : float
        The sum of the losses of this rank's rows.
    """

    number: int
    loss: float
    weight: float
    rows: float
    squares: float
    own_loss: float


@final
class StepRing:
    """Some numbers a step, written by the GPU.

    Parameters
    ----------
    xp : module
    dtype : dtype
        The model's, as tails have it.

    Examples
    --------
    >>> ring = StepRing(np, "float64")
    >>> ring.own(np.array(2.0))
    >>> ring.write(7, np.array([5.0, 4.0, 4.0]), np.array(0.25))
    >>> ring.taken()
    [Step(number=7, loss=5.0, weight=4.0, rows=4.0, squares=0.25, own_loss=2.0)]
    """

    def __init__(self, xp: ModuleType, dtype: np.dtype[Any] | str) -> None:
        self._rows = xp.zeros((STEPS, 5), dtype)
        self._numbers: list[int] = []

    def __len__(self) -> int:
        return len(self._numbers)

    @property
    def is_full(self) -> bool:
        """Whether it must be taken before another step."""
        return len(self._numbers) == STEPS

    def own(self, loss: Array | float) -> None:
        """Note the loss of this rank's rows in the step under way."""
        self._rows[len(self._numbers), 4:] = loss

    def write(self, number: int, tail: Array, squares: Array | float) -> None:
        """Note the rest of step ``number``."""
        row = self._rows[len(self._numbers)]
        row[:3] = tail
        row[3:4] = squares
        self._numbers.append(number)

    def taken(self) -> list[Step]:
        """Return all steps, and keep none; whoever asks waits for the GPU."""
        numbers, self._numbers = self._numbers, []
        found = to_numpy(self._rows[: len(numbers)]).tolist()
        return [Step(number, *values) for number, values in zip(numbers, found, strict=True)]
