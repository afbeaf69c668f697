"""Errors that end a run or its start, in words that name rank, worker and remedy."""

from __future__ import annotations

from scaleml.escaping import printable
from scaleml.runtime.errors import forget_traceback


class RunFailed(RuntimeError):
    """A run ended before its time; the message names rank, worker, step and cause.

    Parameters
    ----------
    message : str
        In it may be what other processes, logs and users said: it is made `printable`.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


def words_of(error: BaseException) -> str:
    """Return an error in words: those of its first cause, for what Dask makes of an error on its way says less than that."""
    root = error
    while root.__cause__ is not None:
        root = root.__cause__
    words = f"{type(root).__name__}: {root}"
    told = " ".join(str(next(iter(error.args), "")).split()).partition(". ")[0]
    return words if root is error else f"{words} ({told or type(error).__name__})"


def passed(error: BaseException) -> str:
    """Return the words of an error that others go on after, and have it let go of what it held, such as futures of ranks."""
    forget_traceback(error)
    return str(error)


class StartFailed(RuntimeError):
    """The ranks of a run could not be brought together; names the one that is missing.

    Parameters
    ----------
    message : str
        As that of `RunFailed`.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class RowsLost(StartFailed):
    """Rows are gone that nobody has or can compute again, or were computed again and are others: nobody can go on with these."""
