"""What can end a run, in words that name rank, step and remedy."""

from __future__ import annotations


class RunFailed(RuntimeError):
    """A run ended before its time; the message names rank, worker, step and cause."""


class NonFinite(ArithmeticError):
    """A loss or gradient is not finite.

    Parameters
    ----------
    rank, step : int
        Whose, and when.
    what, remedy : str
        What is not finite, where; what to do about it.
    """

    def __init__(self, rank: int, step: int, what: str, remedy: str) -> None:
        super().__init__(rank, step, what, remedy)
        self.step, self.what, self.remedy = step, what, remedy

    def __str__(self) -> str:
        rank, step, what, remedy = self.args
        return f"rank {rank}, step {step}: {what}. The parameters of the last good step are kept. {remedy}"


class StartFailed(RuntimeError):
    """The ranks of a run could not be brought together; names the one that is missing."""
