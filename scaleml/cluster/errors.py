"""Errors that end a run or its start, in words that name rank, worker and remedy."""

from __future__ import annotations

from scaleml.escaping import printable


class RunFailed(RuntimeError):
    """A run ended before its time; the message names rank, worker, step and cause.

    Parameters
    ----------
    message : str
        In it may be what other processes, logs and users said: it is made `printable`.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class StartFailed(RuntimeError):
    """The ranks of a run could not be brought together; names the one that is missing.

    Parameters
    ----------
    message : str
        As that of `RunFailed`.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))
