"""What a rank itself can find wrong: values that are not finite. What an error holds."""

from __future__ import annotations

import numpy as np

from scaleml.arrays import Array


def is_finite(values: Array) -> bool:
    """Whether all values are finite. The sum of their squares mostly tells; it alone may overflow."""
    return bool(np.isfinite(values.dot(values)) or np.isfinite(values).all())


class NonFinite(ArithmeticError):
    """A loss or gradient is not finite.

    Parameters
    ----------
    rank, step : int
        Whose, and when.
    what, where, remedy : str
        What is not finite; over which data; what to do about it.
    """

    def __init__(self, rank: int, step: int, what: str, where: str, remedy: str) -> None:
        super().__init__(rank, step, what, where, remedy)
        self.rank, self.step, self.what, self.where, self.remedy = rank, step, what, where, remedy

    def __str__(self) -> str:
        return f"rank {self.rank}, step {self.step}: {self.words}"

    @staticmethod
    def is_told_in(error: str) -> bool:
        """Return whether an error, in words, came of this: all of them advise a smaller rate."""
        return "ivide the learning rate by 10" in error

    @property
    def words(self) -> str:
        """All but whose and when."""
        return f"{self.what} {self.where}. The parameters of the last good step are kept. {self.remedy}"


def forget_traceback(error: BaseException) -> None:
    """Have an error that was told let go of the functions in which it came up, and of what they held.

    What keeps it and stands in its traceback, as an operation in the background does, would keep all memory of its rank until the
    garbage collector comes by.
    """
    left: list[BaseException | None] = [error]
    while left:
        one = left.pop()
        if one is not None and one.__traceback__ is not None:
            one.__traceback__ = None
            left += [one.__cause__, one.__context__]
